// The page: its data, and its sections in order.

const page = JSON.parse(document.getElementById("data").textContent);
const summary = page.summary;
const parts = page.parts;
const phases = page.phases;
const groups = page.groups || [];

/** Where the summary has a group's requests: the reader's at its top, observed ones by their disk and operation. */
function figuresOf(group) {
  if (!group) return null;
  if (group.made_by === "reader") return { at: summary, path: "", io: summary.io.classes, row: summary.requests };
  const rows = (summary.observed && summary.observed.operations) || [];
  const place = group.place !== null && group.place !== undefined ? group.place : rows.findIndex((row) => row.vm === group.vm && row.device === group.disk && operationName(row) === group.operation);
  return !rows[place] ? null : { at: rows[place], path: `observed.operations.${place}.`, io: rows[place].io.classes || rows[place].io, row: rows[place] };
}

function operationName(row) {
  if (row.operation === "write") return row.is_sync ? "sync write" : "write-back";
  return row.operation;
}

function groupName(group) {
  const what = { read: "reads", flush: "flushes", discard: "discards", "sync write": "sync writes", "write-back": "write-backs" }[group.operation] || `${group.operation} requests`;
  return `${what} of ${words([group.vm])}${group.disk ? ` ${group.disk}` : ""}`;
}

function draw() {
  const root = document.getElementById("page");
  const chosen = el("div");
  const main = el("main");
  put(main, [adviceSection(), chosen, runSections()]);
  const header = el("header", null, opening());
  put(root, [header, main, tip]);
  document.title = `${page.title} \u2013 vslice`;
  let chosenPlace = 0;
  const show = (place) => {
    chosenPlace = place;
    replace(chosen, groupSections(groups[place], place));
  };
  if (groups.length > 0) show(0);
  // Nobody can choose on paper, so it has every group, the one that was chosen first, and what is folded.
  addEventListener("beforeprint", () => {
    const others = groups.map((group, place) => place).filter((place) => place !== chosenPlace);
    put(chosen, [el("div", { class: "others" }, others.map((place) => groupSections(groups[place], place)))]);
    root.querySelectorAll("details:not([open])").forEach((fold) => {
      if (fold.closest("#text, #environment, .worst")) return;
      fold.open = true;
      fold.dispatchEvent(new Event("toggle"));
      fold.classList.add("for-paper");
    });
    repaint();
  });
  addEventListener("afterprint", () => {
    chosen.querySelectorAll(".others").forEach((others) => others.remove());
    root.querySelectorAll("details.for-paper").forEach((fold) => {
      fold.open = false;
      fold.classList.remove("for-paper");
    });
  });
  header.append(groupPicker(show), contents(main));
}

function groupPicker(show) {
  if (groups.length < 2) return el("span");
  const options = groups.map((group, place) => el("option", { value: place }, `${groupName(group)} (${count(group.count)})`));
  const select = el("select", { id: "group", onchange: () => show(Number(select.value)) }, options);
  return el("p", { class: "controls", style: { "margin-top": "2rem" } }, el("label", { for: "group" }, "Shown below:"), select,
    page.requests_beyond > 0 && el("span", { class: "muted" }, `${count(page.requests_beyond)} more requests are in groups that are not listed`));
}

/** What is about the requests of one group. */
function groupSections(group, place) {
  return [groupFigures(group), tailSection(group), whatIfSection(group), overTime(group), worstSection(place), whoStole(group), sufferedSection(group)];
}

/** What is about the whole run. */
function runSections() {
  return [noRequests(), observedSection(), vcpuSection(), lockSection(), flameSection(), hostIoSection(), serviceSection(), exitSection(), clockSection(), environmentSection(), textSection()];
}

function opening() {
  const guests = new Set([...(summary.vcpus || []), ...(summary.scheduled || [])].map((row) => row.vm)).size;
  const facts = [`${guests} guest${guests === 1 ? "" : "s"} under ${summary.accelerator.name}`, `${duration(summary.selection ? summary.selection.of_ns : summary.measured_ns)} measured`,
    summary.measured_ns === 0 ? "nothing recorded" : summary.evidence.level === "recorded" ? "scheduler events recorded" : summary.evidence.level === "sampled" ? "sampled, not recorded" : "the kernel's totals only",
    `${count((summary.warnings || []).length)} warning${(summary.warnings || []).length === 1 ? "" : "s"}`];
  return [
    el("h1", null, `vslice: ${page.title}`),
    page.part && el("p", { id: "part" }, el("strong", null, page.part)),
    el("p", { class: "answer", id: "answer" }, unbroken(page.sentence)),
    el("p", { class: "facts" }, facts.join(" \u00b7 ")),
    summary.status.state === "partial" && el("p", { class: "partial", role: "alert" }, el("strong", null, "Partial run. "), summary.status.reason || ""),
    page.warnings.length > 0 && el("div", { class: "warnings", id: "warnings" }, el("ul", null, page.warnings.map((text) => el("li", null, text)))),
  ];
}

function groupFigures(group) {
  const figures = figuresOf(group);
  const latency = figures ? figures.at.latency_ns : group.latency_ns;
  const base = figures ? `${figures.path}latency_ns.` : null;
  const cells = [["min", "shortest"], ["mean", "mean"], ["p50", "p50"], ["p90", "p90"], ["p99", "p99"], ["p999", "p99.9"], ["p9999", "p99.99"], ["max", "longest"]]
    .filter(([key]) => latency[key] !== undefined)
    .map(([key, label]) => el("div", null, el("dt", null, label), el("dd", null, latency[key] === null && group.sent_ns_from && label[0] === "p" ? `<${duration(group.sent_ns_from)}` : number("duration", latency[key], base && base + key))));
  return section("latency", `Latency of ${count(group.count)} ${groupName(group)}`, latencyNotes(group, figures), el("dl", { class: "figures" }, cells));
}

function latencyNotes(group, figures) {
  const notes = [];
  if (group.faster > 0) notes.push(`${count(group.faster)} more were faster than ${duration(group.sent_ns_from)} and not sent by the guest: what they leave unknown is not shown.`);
  if (group.count > group.attributed) {
    const by = figures && (figures.at.unattributable_by || (figures.row && figures.row.unattributable_by));
    notes.push(`${count(group.count - group.attributed)} of them cannot be attributed to causes${by ? ` (${byReason(by, UNATTRIBUTABLE)})` : ""}.`);
  }
  const row = figures && figures.row;
  if (row) {
    const of = (n, word) => (n > 0 ? `${count(n)} ${word}` : "");
    const more = words([row.iops ? `${row.iops < 100 ? fixed(row.iops, 1) : count(Number(fixed(row.iops, 0)))} IOPS` : "", row.bytes ? `${bytes(row.bytes)}${row.elapsed_ns ? ` in ${duration(row.elapsed_ns)}` : ""}` : "", of(row.dropped, "dropped"), of(row.errors, "failed"), of(row.short, "short"), of(row.merged, "merged"), of(row.requeued, "requeued"), of(row.no_queue_time, "without a time in the guest's queue"),
      row.bound_ns ? `accurate to ${duration(row.bound_ns)}` : ""]);
    if (more) notes.push(`${more[0].toUpperCase()}${more.slice(1)}.`);
  }
  return notes.join(" ");
}

function noRequests() {
  if (groups.length > 0) return null;
  return section("requests", "Requests", null, el("p", { class: "about" }, summary.requests.count > 0 ? `${count(summary.requests.count)} requests were recorded, and there is none whose latency could be shown.` : "No request was recorded, so there is no latency to show."));
}

draw();
