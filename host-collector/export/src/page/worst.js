// The worst requests as drawn timelines: how far the I/O was, what each vCPU's thread did, who had its pCPUs, and marks.

function worstSection(place) {
  const rows = (page.worst || []).filter((row) => row.group === place);
  if (rows.length === 0) return null;
  return section("worst", "The slowest requests",
    "From above: how far the I/O was, what the threads of its vCPUs did, and who was on their pCPUs meanwhile. Every stretch gives its numbers on hover; the tab key goes from lane to lane, the arrows along it.",
    rows.map((row, rank) => worstRequest(row, rank)));
}

function partsOf(row) {
  const totals = row.parts_ns ? [...row.parts_ns] : parts.map(() => 0);
  if (!row.parts_ns) for (const span of row.spans) totals[span.part] += span.to_ns - span.from_ns;
  return parts.map((part, place) => ({ kind: "part", name: part.name, label: part.label, value: totals[place] }));
}

function worstRequest(row, rank) {
  const who = row.process ? `${row.process}${row.pid ? ` (pid ${row.pid})` : ""}` : "request";
  const what = words([row.bytes ? bytes(row.bytes) : "", row.sector !== null && row.sector !== undefined && row.bytes ? `sector ${count(row.sector)}` : ""]);
  const pieces = partsOf(row);
  const body = el("div", { class: "body" });
  const fold = el("details", { class: "worst", open: rank < 2, "data-latency": row.latency_ns },
    el("summary", null, el("span", { class: "rank" }, String(rank + 1)), el("strong", null, number("duration", row.latency_ns)),
      el("span", null, who, what && el("span", { class: "muted" }, `, ${what}`), el("span", { class: "muted" }, `, at ${seconds(row.start_ns)}`)),
      stack(pieces, sum(pieces.map((piece) => piece.value)) || 1, "of its latency", true)),
    body);
  const fill = () => {
    if (fold.open && !body.hasChildNodes()) put(body, [timeline(row)]);
  };
  fold.addEventListener("toggle", fill);
  fill();
  return fold;
}

/** The page's width is the request, and on either side as much of the clock's bound as has room. */
function timeline(row) {
  const total = row.latency_ns || 1;
  const beside = Math.min(row.clock_bound_ns, total * 0.1);
  const share = (ns) => (Math.max(-beside, Math.min(total + beside, ns)) + beside) / (total + 2 * beside);
  const at = (ns) => `${share(ns) * 100}%`;
  const wide = (from, to) => `${(share(to) - share(from)) * 100}%`;
  const grid = el("div", { class: "timeline" });
  const said = [];
  const marks = row.marks || [];
  put(grid, [el("span", { class: "label" }), el("div", { class: "marks", "aria-hidden": "true" }, spreadMarks(marks, at).map(({ mark, left }) => el("b", { style: { left } }, String(mark + 1))))]);
  put(grid, [el("span", { class: "label" }, "I/O"), phaseLane(row, at, wide, total)]);
  const vcpus = [...new Set(row.spans.map((span) => span.vcpu))];
  for (const vcpu of vcpus) put(grid, [el("span", { class: "label" }, vcpu === null || vcpu === undefined ? "vCPU unknown" : `vCPU${vcpu} thread`), spanLane(row.spans.filter((span) => span.vcpu === vcpu), at, wide, total)]);
  for (const pcpu of row.pcpus || []) {
    if (pcpu.stays) put(grid, [el("span", { class: "label" }, `pCPU${pcpu.pcpu}`), stayLane(pcpu, at, wide, total)]);
    else said.push(`who was on pCPU${pcpu.pcpu} is unknown: ${pcpu.unknown || "not recorded"}`);
    if (pcpu.cut_stays > 0) said.push(`${count(pcpu.cut_stays)} of the shortest stays on pCPU${pcpu.pcpu}, ${duration(pcpu.cut_ns)} in all, are not drawn one by one`);
  }
  if (!row.pcpus) said.push("who was on its pCPUs was not recorded");
  const bounds = row.bounds.filter((of) => of.bound_ns > 0);
  if (bounds.length > 0) put(grid, [el("span", { class: "label" }, "clock bound"), boundLane(bounds, at, wide)]);
  put(grid, [el("span", { class: "label" }), timeAxis(total, at)]);
  put(grid, [el("div", { class: "rules", "aria-hidden": "true" }, bounds.map((of) => el("span", { class: "bound", style: { left: at(of.at_ns - of.bound_ns), width: wide(of.at_ns - of.bound_ns, of.at_ns + of.bound_ns) } })), marks.map((mark) => el("i", { style: { left: at(mark.at_ns) } })))]);
  if (row.cut_spans > 0) said.push(`${count(row.cut_spans)} spans at its end are left out`);
  if (row.unattributable) said.push(row.unattributable);
  if (row.io_unknown) said.push(`its I/O's phases are unknown: ${row.io_unknown}`);
  const isOne = bounds.every((of) => of.bound_ns === row.clock_bound_ns);
  const moved = isOne ? [`its times may be ${duration(row.clock_bound_ns)}`] : bounds.map((of) => `its ${of.what} may be ${duration(of.bound_ns)}`);
  said.push(row.clock_bound_ns > 0 ? `on the host's clock ${words(moved)} earlier or later than they are drawn` : "on the host's clock its times are exact");
  return [row.heading && el("p", { class: "muted" }, row.heading), grid,
    marks.length > 0 && el("ol", { class: "said" }, marks.map((mark) => el("li", null, `${exactly(mark.at_ns)}  ${mark.label}`))),
    el("p", { class: "muted small" }, `${said.join("; ")}.`.replace(/^./, (letter) => letter.toUpperCase())), spanTable(row)];
}

/** Marks that are close share a line of text, so their numbers are pushed apart. */
function spreadMarks(marks, at) {
  let last = null;
  return marks.map((mark, place) => ({ mark: place, at_ns: mark.at_ns })).sort((a, b) => a.at_ns - b.at_ns).map((entry) => {
    const own = at(entry.at_ns);
    last = last === null ? own : `max(${own}, ${last} + 0.9rem)`;
    return { mark: entry.mark, left: `min(100%, ${last})` };
  });
}

function laneItem(from, to, total, at, wide, options, text) {
  const share = (to - from) / total;
  return el("span", { class: `${options.class || ""} ${share < 0.025 ? "narrow" : ""}`, style: { left: at(from), width: wide(from, to), ...options.style } }, share < 0.025 ? "" : text);
}

function phaseLane(row, at, wide, total) {
  const items = row.phases.map((stretch) => {
    const phase = phases[stretch.phase];
    return laneItem(stretch.from_ns, stretch.to_ns, total, at, wide, { class: hatch(phase.name), style: paint("phase", phase.name) }, phase.label);
  });
  tell(items, (index) => {
    const stretch = row.phases[index];
    return [phases[stretch.phase].label, `${exactly(stretch.to_ns - stretch.from_ns)}, from ${exactly(stretch.from_ns)}`,
      stretch.vcpu !== null && stretch.vcpu !== undefined ? `laid over vCPU${stretch.vcpu}` : "which vCPU it waited for is unknown",
      stretch.gaps_ns > 0 ? `for ${duration(stretch.gaps_ns)} of it nothing was in flight` : ""];
  });
  return el("div", { class: "lane", role: "group", "aria-label": "How far the I/O was" }, items);
}

function spanLane(spans, at, wide, total) {
  const items = spans.map((span) => laneItem(span.from_ns, span.to_ns, total, at, wide, { class: hatch(parts[span.part].name), style: paint("part", parts[span.part].name) }, span.label));
  tell(items, (index) => {
    const span = spans[index];
    return [span.label, `${exactly(span.to_ns - span.from_ns)}, from ${exactly(span.from_ns)}`, parts[span.part].label,
      ...(span.who || []).slice(0, 6).map((who) => `${whoName(who)}: ${duration(who.ran_ns)}`), span.others_ns > 0 ? `others: ${duration(span.others_ns)}` : "", span.idle_ns > 0 ? `idle: ${duration(span.idle_ns)}` : ""];
  });
  return el("div", { class: "lane", role: "group", "aria-label": "What the vCPU's thread did" }, items);
}

function whoName(who) {
  return who.group && who.group !== who.name && !who.name.startsWith(`${who.group} `) ? `${who.name} (${who.group})` : who.name;
}

/** Own threads in the colour of being on a pCPU, the others in one grey with their names. */
function stayLane(pcpu, at, wide, total) {
  const items = pcpu.stays.map((stay) => laneItem(stay.from_ns, stay.to_ns, total, at, wide,
    { class: stay.kind === "idle" ? "idle" : stay.is_own_vm ? "stay own" : "stay", style: stay.is_own_vm || stay.kind === "idle" ? {} : { "--c": "var(--somebody)" } }, stay.name));
  tell(items, (index) => {
    const stay = pcpu.stays[index];
    return [whoName(stay), `${exactly(stay.to_ns - stay.from_ns)}, from ${exactly(stay.from_ns)}`, stay.kind ? kindLabel(stay.kind) : stay.is_own_vm ? "own VM" : ""];
  });
  return el("div", { class: pcpu.cut_stays > 0 ? "lane cut" : "lane", role: "group", "aria-label": `Who was on pCPU${pcpu.pcpu}` }, items);
}

/** How far what the guest told may be off: a whisker at each of its times. */
function boundLane(bounds, at, wide) {
  const items = bounds.map((of) => el("span", { style: { left: at(of.at_ns - of.bound_ns), width: wide(of.at_ns - of.bound_ns, of.at_ns + of.bound_ns) } }));
  tell(items, (index) => [`Its ${bounds[index].what}`, `${exactly(bounds[index].at_ns)} \u00b1 ${duration(bounds[index].bound_ns)} on the host's clock`, "as far as the lanes above may be shifted against it"]);
  return el("div", { class: "lane whiskers", role: "group", "aria-label": "What the clock's bound could move" }, items);
}

function timeAxis(total, at) {
  const size = step(total, 6);
  const ticks = [];
  for (let ns = 0; ns < total * 0.97; ns += size) ticks.push(ns);
  return el("div", { class: "axis", "aria-hidden": "true" }, ticks.map((ns) => el("span", { style: { left: at(ns) } }, ns === 0 ? "0" : tick(ns))),
    ticks.map((ns) => el("i", { style: { left: at(ns) } })));
}

function spanTable(row) {
  const fold = el("details", null, el("summary", null, `All ${count(row.spans.length)} spans in numbers`));
  fold.addEventListener("toggle", () => {
    if (!fold.open || fold.querySelector("table")) return;
    put(fold, [table(null, [
      { head: "from", kind: "plain", value: (span) => span.from_ns, show: (span) => exactly(span.from_ns) },
      { head: "for", kind: "plain", value: (span) => span.to_ns - span.from_ns, show: (span) => exactly(span.to_ns - span.from_ns) },
      { head: "part", value: (span) => parts[span.part].label, show: (span) => [swatch("part", parts[span.part].name), parts[span.part].label] },
      { head: "what", value: (span) => span.label, class: "text" },
      { head: "who ran", value: (span) => (span.who || []).map((who) => `${whoName(who)} ${duration(who.ran_ns)}`).join(", "), class: "text" },
    ], row.spans)]);
  });
  return fold;
}
