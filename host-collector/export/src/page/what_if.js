// What could be gained: percentiles of the requests' latencies without a cause, as `summary/what_if.rs` of vslice-report
// has them, in the order of the text page.

const CAUSE_TAKEN = { device: "the host's disk", guest_queue: "the guest's own queue", pcpu_wait: "waiting for a pCPU", on_pcpu: "time on a pCPU" };

function whatIfSection(group) {
  const figures = figuresOf(group);
  const whatIf = figures && figures.at.what_if;
  if (!whatIf) return null;
  const measured = figures.at.latency_ns;
  const kept = whatIf.unattributed > 0 ? ` ${count(whatIf.unattributed)} that could not be attributed are kept as they were.` : "";
  const others = whatIf.other_groups_ns > 0 && el("p", { class: "muted small" }, "Others who ran while requests waited for a pCPU had at most ", number("duration", whatIf.other_groups_ns, `${figures.path}what_if.other_groups_ns`), ".");
  return section("what-if", "What if", `The latency of ${count(whatIf.attributed)} requests, had each been spared its time in one cause. That bounds what taking the cause away can gain, and is no forecast: what takes its place makes the gain smaller.${kept}`,
    whatIfTable(group, whatIf, measured, `${figures.path}what_if.`), others);
}

function whatIfRows(whatIf, base) {
  const causes = whatIf.causes.map((row, at) => ({ row, name: CAUSE_TAKEN[row.cause] || partLabel(row.cause), colour: partColour(causeColour(row.cause)), path: `${base}causes.${at}.` }));
  const inactivity = whatIf.inactivity ? [{ row: whatIf.inactivity, name: "I/O inactivity", colour: "var(--phase-completed)", path: `${base}inactivity.` }] : [];
  const groups = whatIf.antagonist_groups.map((row, at) => ({ row, name: row.kind === "own_vm" ? `the rest of ${row.name}` : row.name, colour: "var(--somebody)", path: `${base}antagonist_groups.${at}.` }));
  const left = ({ row }) => [row.latency_ns.p99, row.latency_ns.p999, row.latency_ns.p50, -row.taken_ns].map((of) => of ?? -1);
  const inOrder = (a, b) => left(a).map((of, at) => of - left(b)[at]).find((difference) => difference !== 0) || 0;
  return [...causes, ...inactivity, ...groups].sort(inOrder);
}

function partLabel(name) {
  return (parts.find((part) => part.name === name) || { label: name.replaceAll("_", " ") }).label;
}

/** Each percentile that is left, and what clock errors and what is unknown could make of it. */
function whatIfTable(group, whatIf, measured, base) {
  const known = (ns) => (ns === null || ns === undefined ? (group.sent_ns_from ? `<${duration(group.sent_ns_from)}` : "\u2013") : duration(ns));
  const left = (head, key) => [
    { head, kind: "duration", value: (line) => line.row.latency_ns[key] ?? null, path: (line) => line.path && `${line.path}latency_ns.${key}`, show: (line) => (line.row.latency_ns[key] === null ? known(null) : undefined) },
    { head: "may be", value: (line) => maybe(line.row, key, known) },
  ];
  const rows = [{ row: { requests: whatIf.attributed, taken_ns: null, latency_ns: measured }, name: "(as measured)", colour: "var(--strong-line)" }, ...whatIfRows(whatIf, base)];
  return table(null, [
    { head: "without", value: (line) => line.name },
    { head: "p99 that is left", bar: true, kind: "bar", value: (line) => line.row.latency_ns.p99, show: (line) => measured.p99 > 0 && bar(line.row.latency_ns.p99 / measured.p99, line.colour) },
    ...left("p99", "p99"), ...left("p99.9", "p999"), ...left("p50", "p50"),
    { head: "requests", kind: "count", value: (line) => line.row.requests, path: (line) => line.path && `${line.path}requests` },
    { head: "total", kind: "duration", value: (line) => line.row.taken_ns, path: (line) => line.path && `${line.path}taken_ns`, show: (line) => (line.path ? undefined : "") },
  ], rows);
}

function maybe(row, key, known) {
  if (!row.low_ns) return "";
  const [low, high] = [known(row.low_ns[key]), known(row.high_ns[key])];
  return low === high ? "" : `${low} to ${high}`;
}
