// The flame graph of folded stacks: a row a level, the root at the top, as wide as its time. A frame that is opened
// fills the width.

function flameSection() {
  const folded = page.folded || [];
  if (folded.length === 0) return stackSection();
  // Threads that sleep all the time are wide and tell nothing, so the vCPUs come first.
  const ofVcpus = folded.filter(([path]) => /^[^;]*;vCPU/.test(path));
  let root = treeOf(ofVcpus.length > 0 ? ofVcpus : folded);
  const whose = ofVcpus.length > 0 && ofVcpus.length < folded.length && el("div", { class: "controls" }, choice("Threads", [["vcpus", "vCPUs"], ["all", "all"]], "vcpus", (of) => {
    root = treeOf(of === "all" ? folded : ofVcpus);
    show(root);
  }));
  const holder = el("div", { class: "flame", role: "group", "aria-label": "Flame graph of time off a pCPU" });
  const said = el("p", { class: "hint muted", "aria-live": "polite" });
  const show = (node) => {
    drawFlame(holder, node, show);
    replace(said, node === root ? `${duration(root.value)} off a pCPU in all. Open a frame to see it alone.` : `${node.name}: ${duration(node.value)}, ${percent(node.value / root.value)} of all. Open what is above it, or press escape, to go back.`);
  };
  holder.addEventListener("keydown", (event) => {
    if (event.key === "Escape") show(root);
  });
  show(root);
  return section("flame", "Where the time off a pCPU went", "From above: the VM, its vCPU, why it was off its pCPU, the frames of the host's kernel, and who ran or let go meanwhile. Widths are times.", whose, said, holder, stackTable());
}

function treeOf(folded) {
  const root = { name: "all", value: 0, children: new Map(), parent: null, depth: 0 };
  for (const [path, value] of folded) {
    let node = root;
    node.value += value;
    for (const name of path.split(";").slice(0, 64)) {
      if (!node.children.has(name)) node.children.set(name, { name, value: 0, children: new Map(), parent: node, depth: node.depth + 1 });
      node = node.children.get(name);
      node.value += value;
    }
  }
  return root;
}

function drawFlame(holder, top, show) {
  const items = [];
  const nodes = [];
  let deepest = 0;
  const add = (node, left, width, above) => {
    if (width < 0.15) return;
    deepest = Math.max(deepest, node.depth);
    const reason = reasonOf(node);
    items.push(el("button", { type: "button", class: `${above ? "above" : ""} ${width < 2 ? "narrow" : ""}`, style: { ...(reason ? paint("part", reason) : { "--c": "var(--somebody)" }), top: `${node.depth * 1.4}rem`, left: `${left}%`, width: `${width}%` }, onclick: () => show(node) }, width < 2 ? "" : node.depth === 3 ? reasonLabel(node.name) : node.name));
    nodes.push(node);
    if (above) return;
    let from = left;
    for (const child of [...node.children.values()].sort((a, b) => b.value - a.value)) {
      const share = (child.value / node.value) * width;
      add(child, from, share, false);
      from += share;
    }
  };
  for (let node = top.parent; node; node = node.parent) add(node, 0, 100, true);
  add(top, 0, 100, false);
  replace(holder, items);
  holder.style.height = `${(deepest + 1) * 1.4}rem`;
  tell(items, (index) => [nodes[index].name, `${duration(nodes[index].value)}, ${percent(nodes[index].value / top.value)}`]);
  items.forEach((item) => item.setAttribute("role", "button"));
}

/** A frame has the colour of the reason that it is under; what is above the reasons has none of its own. */
function reasonOf(node) {
  for (let at = node; at; at = at.parent) {
    if (at.depth === 3) {
      const known = Object.entries(REASONS).find(([name, [label]]) => name === at.name || label === at.name);
      return known ? known[1][1] : "unknown";
    }
  }
  return null;
}

function stackSection() {
  const shown = stackTable();
  return shown && section("flame", "Where the vCPU threads left their pCPU", "The host's kernel stacks at that moment, the innermost frame first.", shown);
}

function stackTable() {
  const rows = summary.stacks || [];
  if (rows.length === 0) return null;
  return table("Kernel stacks, the innermost frame first", [
    { head: "reason", value: (row) => reasonLabel(row.reason), show: (row) => [swatch("part", reasonPart(row.reason)), reasonLabel(row.reason)] },
    { head: "times", kind: "count", value: (row) => row.count, path: (row) => `stacks.${rows.indexOf(row)}.count` },
    { head: "total", kind: "duration", value: (row) => row.total_ns, path: (row) => `stacks.${rows.indexOf(row)}.total_ns` },
    { head: "frames", value: (row) => row.frames.join(" < "), class: "text" },
  ], rows);
}
