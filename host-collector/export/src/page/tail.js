// Where the tail went: bars over percentiles, and the tables behind them.

function waysOf(group) {
  const ways = [];
  const have = group.bands.some((band) => band.causes_ns) && (page.causes || []).length > 0;
  if (have) ways.push(["causes_ns", "cause", page.causes.map((cause) => ({ kind: "cause", name: causeColour(cause.name), label: cause.label }))]);
  ways.push(["parts_ns", "what the vCPU did", parts.map((part) => ({ kind: "part", name: part.name, label: part.label }))]);
  ways.push(["phases_ns", "phase of the I/O", phases.map((phase) => ({ kind: "phase", name: phase.name, label: phase.label }))]);
  return ways;
}

/** A cause has the colour of the part that it is. */
function causeColour(name) {
  if (name === "device" || name === "guest_queue") return `phase-${name}`;
  if (name === "pcpu_wait") return "preempt_wait";
  return name;
}

function bandName(band) {
  return band.to === 100 ? `slowest, above p${band.from}` : `p${band.from} to p${band.to}`;
}

function tailSection(group) {
  if (group.bands.length === 0) return null;
  const ways = waysOf(group);
  const bars = el("div", { class: "bars", role: "group", "aria-label": "Where the time of the requests went, by percentile" });
  const below = el("div");
  const show = (key) => {
    const [, , names] = ways.find(([name]) => name === key);
    replace(bars, group.bands.map((band) => bandRow(band, key, names)));
    const used = names.filter((_, place) => group.bands.some((band) => band[key][place] > 0));
    replace(below, legend(used));
  };
  show(ways[0][0]);
  return section("tail", "Where the tail went",
    "Each bar is all the time of the requests between two percentiles of latency. The fastest are at the top; what grows towards the bottom is what makes slow requests slow.",
    el("div", { class: "controls" }, choice("By", ways.map(([key, label]) => [key, label]), ways[0][0], show)),
    el("figure", { style: { margin: 0 } }, bars, below), el("div", { class: "pair" }, el("div", null, causesTable(group)), el("div", null, phasesTables(group))), partsTable(group));
}

function bandRow(band, key, names) {
  const total = sum(band[key]) || 1;
  const pieces = names.map((name, place) => ({ ...name, value: band[key][place], more: [`${duration(band[key][place] / band.count)} a request`] }));
  return el("div", null,
    el("span", { class: "label" }, bandName(band)),
    stack(pieces, total, `of ${count(band.count)} requests`),
    el("span", { class: "value" }, `${count(band.count)} \u00b7 ${duration(band.latency_from_ns)} to ${duration(band.latency_to_ns)}`),
  );
}

function classColumns(figures, total) {
  return CLASSES.filter(([name]) => figures.at.classes[name] && figures.at.classes[name].count > 0).flatMap(([name, label]) => total(name, label));
}

function partsTable(group) {
  const figures = figuresOf(group);
  if (!figures) return null;
  // What is unknown says how far the others may be believed, so it is always there.
  const rows = parts.filter((part) => part.name === "unknown" || CLASSES.some(([name]) => figures.at.parts[name][part.name] > 0));
  const of = (name) => figures.at.classes[name].latency_ns;
  const columns = [{ head: "what the vCPU did", value: (part) => part.label, show: (part) => [swatch("part", part.name), part.label] },
    ...classColumns(figures, (name, label) => [
      { head: label, kind: "duration", value: (part) => figures.at.parts[name][part.name], path: (part) => `${figures.path}parts.${name}.${part.name}` },
      { head: "share", kind: "percent", value: (part) => figures.at.parts[name][part.name] / of(name) },
      { head: "\u00b1 clock", kind: "duration", value: (part) => figures.at.clock_error_ns[name][part.name], path: (part) => `${figures.path}clock_error_ns.${name}.${part.name}` },
    ])];
  const classes = CLASSES.map(([name, label]) => [name, label, figures.at.classes[name]]).filter(([, , row]) => row);
  return el("details", null, el("summary", null, "In numbers"),
    table("What the vCPU did while requests were under way: total, share of their latency, and what clock errors could make of it", columns, rows),
    table("The requests of each column", [
      { head: "", value: ([, label]) => label },
      { head: "slower than", kind: "duration", value: ([, , row]) => row.threshold_ns, path: ([name]) => `${figures.path}classes.${name}.threshold_ns` },
      { head: "requests", kind: "count", value: ([, , row]) => row.count, path: ([name]) => `${figures.path}classes.${name}.count` },
      { head: "latency", kind: "duration", value: ([, , row]) => row.latency_ns, path: ([name]) => `${figures.path}classes.${name}.latency_ns` },
      { head: "not attributed", kind: "count", value: ([, , row]) => row.unattributable, path: ([name]) => `${figures.path}classes.${name}.unattributable` },
      { head: "clock unsure", kind: "count", value: ([, , row]) => row.clock_uncertain, path: ([name]) => `${figures.path}classes.${name}.clock_uncertain` },
      { head: "waited for a pCPU", kind: "duration", value: ([, , row]) => row.wait_ns, path: ([name]) => `${figures.path}classes.${name}.wait_ns` },
    ], classes), bandsTable(group));
}

/** The bars' requests, and of how long their I/O was done and no vCPU on a pCPU to take it. */
function bandsTable(group) {
  const inactivity = (band) => {
    const of = (name) => band.phases_ns[phases.findIndex((phase) => phase.name === name)];
    const isKnown = band.inactivity_ns > 0 || of("unknown") === 0;
    return isKnown ? band.inactivity_ns : null;
  };
  const unknown = (kind, of) => (band) => (inactivity(band) === null ? "unknown" : number(kind, of(band)));
  const share = (band) => (inactivity(band) === null ? null : band.inactivity_ns / band.latency_ns);
  return table("The requests of each bar", [
    { head: "", value: bandName },
    { head: "requests", kind: "count", value: (band) => band.count },
    { head: "fastest", kind: "duration", value: (band) => band.latency_from_ns },
    { head: "slowest", kind: "duration", value: (band) => band.latency_to_ns },
    { head: "latency", kind: "duration", value: (band) => band.latency_ns },
    { head: "I/O inactivity", kind: "duration", value: inactivity, show: unknown("duration", inactivity) },
    { head: "share", kind: "percent", value: share, show: unknown("percent", share) },
  ], group.bands);
}

function causesTable(group) {
  const figures = figuresOf(group);
  if (!figures) return null;
  const key = (cause) => `${cause.phase}/${cause.part}`;
  const all = new Map();
  for (const [name] of CLASSES) for (const cause of figures.at.causes[name] || []) if (cause.total_ns > 0) all.set(key(cause), cause);
  const found = (name, cause) => (figures.at.causes[name] || []).find((other) => key(other) === key(cause)) || { total_ns: 0, share: 0 };
  const rows = [...all.values()].sort((a, b) => found("p99", b).total_ns - found("p99", a).total_ns || found("all", b).total_ns - found("all", a).total_ns);
  const label = (list, name) => (list.find((entry) => entry.name === name) || { label: String(name) }).label;
  return [el("h3", null, "What they waited for"), table(null, [
    { head: "cause", value: (cause) => (cause.part ? label(parts, cause.part) : "the host's disk"), show: (cause) => [swatch(cause.part ? "part" : "phase", cause.part || "device"), cause.part ? label(parts, cause.part) : "the host's disk"] },
    { head: "while the I/O was", value: (cause) => label(phases, cause.phase) },
    { head: "", bar: true, kind: "bar", value: (cause) => found("p99", cause).share, show: (cause) => bar(found("p99", cause).share, cause.part ? partColour(cause.part) : "var(--phase-device)") },
    ...classColumns(figures, (name, text) => [
      { head: text, kind: "duration", value: (cause) => found(name, cause).total_ns },
      { head: "share", kind: "percent", value: (cause) => found(name, cause).total_ns / (figures.at.classes[name].latency_ns || NaN) },
    ])], rows)];
}

/** How far the I/O was, by what the vCPU did meanwhile, with I/O inactivity in words. */
function phasesTables(group) {
  const figures = figuresOf(group);
  if (!figures) return null;
  const holder = el("div");
  const show = (name) => replace(holder, phasesTable(figures, name));
  const known = CLASSES.filter(([name]) => figures.io && figures.io[name] && figures.at.classes[name].count > 0);
  if (known.length === 0) return null;
  show(known[0][0]);
  return [el("h3", null, "How far the I/O was, by what the vCPU did"), el("div", { class: "controls" }, choice("Requests", known, known[0][0], show)), holder];
}

/** Where no known vCPU was late, an unknown one may have been. */
function knowsInactivity(io) {
  return io.known > 0 && (io.inactive > 0 || io.steered === 0);
}

function phasesTable(figures, name) {
  const io = figures.io[name];
  const latency = figures.at.classes[name].latency_ns || 1;
  const base = `${figures.path}io.${figures.path === "" || figures.at.io.classes ? "classes." : ""}${name}.`;
  const shownPhases = phases.filter((phase) => (io.phases_ns[phase.name] || 0) > 0);
  const rows = parts.filter((part) => shownPhases.some((phase) => (io.parts_ns[phase.name] || {})[part.name] > 0));
  const total = { label: "total" };
  const cell = (part, phase) => (part === total ? io.phases_ns : io.parts_ns[phase.name] || {})[part === total ? phase.name : part.name] || 0;
  const columns = [
    { head: "what the vCPU did", value: (part) => part.label, show: (part) => [part !== total && swatch("part", part.name), part.label] },
    ...shownPhases.map((phase) => ({ head: phase.label, kind: "percent", value: (part) => cell(part, phase) / latency, heat: (part) => (part === total ? 0 : cell(part, phase) / latency) })),
    { head: "all phases", kind: "duration", value: (part) => sum(shownPhases.map((phase) => cell(part, phase))) },
  ];
  const known = !knowsInactivity(io) ? el("p", null, "I/O inactivity is unknown.")
    : el("p", null, io.steered > 0 ? "I/O inactivity, at least: " : "I/O inactivity, when the I/O was done and the vCPU not on a pCPU to take it: ", number("duration", io.inactivity_ns, `${base}inactivity_ns`), " in ", number("count", io.inactive, `${base}inactive`), " requests, ", number("percent", io.inactivity_share, `${base}inactivity_share`), " of the latency.");
  const unphased = byReason(io.unphased_by, UNPHASED);
  return [table("Share of the requests' latency", columns, [...rows, total], { last: total }), known,
    el("p", { class: "muted" }, "Phases are known of ", number("count", io.known, `${base}known`), " requests", unphased && `, and unknown of others (${unphased})`, io.steered > 0 && `; of ${count(io.steered)} of them it is unknown which vCPU took the interrupt, so that its state after completion is unknown`, ".")];
}
