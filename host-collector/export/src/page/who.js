// Who stole the time: groups of threads, with their threads, by how long they ran while a vCPU waited.

function whoStole(group) {
  const figures = figuresOf(group);
  if (!figures) return null;
  const known = CLASSES.filter(([name]) => figures.at.classes[name] && figures.at.classes[name].wait_ns > 0);
  if (known.length === 0) return null;
  const holder = el("div");
  const show = (name) => replace(holder, whoTable(figures, name));
  show(known[0][0]);
  return section("who", "Who stole the time", "Who ran on the pCPU while these requests' vCPUs were ready to run and had none. Groups are VMs, control groups and kernel threads; below each are the threads that ran longest.",
    el("div", { class: "controls" }, choice("Requests", known, known[0][0], show)), holder);
}

function whoTable(figures, name) {
  const row = figures.at.classes[name];
  const base = `${figures.path}classes.${name}.`;
  const lines = [];
  row.antagonist_groups.forEach((group, place) => {
    if (group.ran_ns === 0) return;
    lines.push({ level: 0, name: group.name, kind: kindLabel(group.kind), note: words([crowd(group), group.path && group.path !== group.name ? group.path : ""]), ran_ns: group.ran_ns, error_ns: group.error_ns, path: `${base}antagonist_groups.${place}.ran_ns`, victim: `${group.victim_vm} vCPU${group.victim_vcpu}`, pcpu: group.pcpu });
    if (group.members.length > 1 || group.members.some((member) => member.name !== group.name)) {
      group.members.forEach((member, at) => lines.push({ level: 1, name: member.name, kind: kindLabel(member.kind), note: "", ran_ns: member.ran_ns, path: `${base}antagonist_groups.${place}.members.${at}.ran_ns`, victim: "", pcpu: null }));
    }
  });
  for (const [key, label] of [["other_groups_ns", "others"], ["idle_ns", "nobody: the pCPU was idle"], ["unseen_ns", "not seen"]]) {
    if (row[key] > 0) lines.push({ level: 0, name: label, kind: "", note: "", ran_ns: row[key], path: base + key, victim: "", pcpu: null });
  }
  return [el("p", null, "They waited ", number("duration", row.wait_ns, `${base}wait_ns`), " for a pCPU, ", number("percent", row.wait_ns / row.latency_ns), " of their latency."), table(null, [
    { head: "who", value: (line) => line.name, show: (line) => el("span", { class: line.level ? "member" : null }, line.name) },
    { head: "", bar: true, kind: "bar", value: (line) => line.ran_ns, show: (line) => bar(line.ran_ns / row.wait_ns, line.level ? "var(--strong-line)" : "var(--preempt_wait)") },
    { head: "ran", kind: "duration", value: (line) => line.ran_ns, path: (line) => line.path },
    { head: "of the waits", kind: "percent", value: (line) => line.ran_ns / row.wait_ns },
    { head: "kind", value: (line) => line.kind },
    { head: "threads", optional: true, value: (line) => line.note, class: "text" },
    { head: "who waited", value: (line) => line.victim },
    { head: "for pCPU", kind: "plain", value: (line) => line.pcpu, show: (line) => (line.pcpu === null ? "" : String(line.pcpu)) },
  ], lines), antagonistTable(row, base)];
}

function antagonistTable(row, base) {
  return threadTable(row.antagonists.map((entry, place) => ({ ...entry, wait_ns: row.wait_ns, path: `${base}antagonists.${place}.` })));
}

/** Threads by how long they ran while others waited. */
function threadTable(threads, before) {
  const rows = threads.filter((entry) => entry.ran_ns > 0);
  if (rows.length === 0) return null;
  return el("details", null, el("summary", null, "By thread, with command lines"), table(null, [...(before || []),
    { head: "thread", value: (entry) => entry.name },
    { head: "tid", kind: "plain", value: (entry) => entry.tid },
    { head: "kind", value: (entry) => kindLabel(entry.kind) },
    { head: "ran", kind: "duration", value: (entry) => entry.ran_ns, path: (entry) => `${entry.path}ran_ns` },
    { head: "or more by", kind: "duration", optional: true, value: (entry) => entry.error_ns, path: (entry) => `${entry.path}error_ns` },
    { head: "share", kind: "percent", value: (entry) => entry.ran_ns / entry.wait_ns },
    { head: "threads", value: crowd },
    { head: "group", value: (entry) => entry.group_path || entry.group || "" , class: "text" },
    { head: "command", value: (entry) => entry.command || "", class: "text" },
  ], rows));
}

/** Every disk and operation that was observed in a guest, also where its kernel sent none, as all were faster. */
function observedSection() {
  const rows = (summary.observed && summary.observed.operations) || [];
  const path = (key) => (row) => `observed.operations.${rows.indexOf(row)}.${key}`;
  const limit = (row) => `<${duration((summary.observed.guests.find((guest) => guest.vm === row.vm) || {}).slower_than_us * 1000)}`;
  const latency = (head, key) => ({ head, kind: "duration", value: (row) => row.latency_ns[key] ?? null, path: path(`latency_ns.${key}`),
    show: (row) => (row.faster > 0 && (row.latency_ns[key] ?? null) === null && !["min", "mean"].includes(key) ? limit(row) : undefined) });
  return section("observed", "All requests of the guests", "Whoever made them, by disk and operation.", table(null, [
    { head: "requests", value: (row) => `${row.vm} ${row.device} ${operationName(row)}` },
    { head: "recorded", kind: "count", value: (row) => row.count, path: path("count") },
    { head: "not sent", kind: "count", optional: true, value: (row) => row.faster || null },
    { head: "bytes", kind: "bytes", value: (row) => row.bytes, path: path("bytes") },
    latency("shortest", "min"), latency("mean", "mean"), latency("p50", "p50"), latency("p90", "p90"), latency("p99", "p99"), latency("p99.9", "p999"), latency("p99.99", "p9999"), latency("longest", "max"),
  ], rows));
}

/** Requests whose phases are known are for some time in one of these. */
function isUnphased(totals) {
  return sum(["queued", "device", "completed"].map((phase) => totals.phases_ns[phase] || 0)) === 0 && totals.phases_ns.unknown > 0;
}

/** Who in the guest waited for these requests. */
function sufferedSection(group) {
  const figures = figuresOf(group);
  const rows = figures && figures.row && figures.row.processes;
  if (!rows || rows.length === 0) return null;
  const base = (row) => `${figures.path}processes.${rows.indexOf(row)}.`;
  const share = (name) => (row) => row.classes[name].latency_ns / (figures.at.classes[name].latency_ns || NaN);
  // Without a tail it is about all of them, as on the text page.
  const name = figures.at.classes.p99.count > 0 ? "p99" : "all";
  const phaseShare = (phase) => (row) => (isUnphased(row.classes[name]) && phase === "device" ? null : (row.classes[name].phases_ns[phase] || 0) / (row.classes[name].latency_ns || NaN));
  const inactivity = (row) => (isUnphased(row.classes[name]) || (row.classes[name].inactivity_ns === 0 && !knowsInactivity(figures.io[name])) ? null : row.classes[name].inactivity_ns);
  const unknown = (of, kind) => (row) => (of(row) === null ? "unknown" : number(kind, of(row)));
  return section("suffered", "Who in the guest waited", `Processes of the guest that made these requests; guest queue, disk and inactivity are of ${name === "p99" ? "those above p99" : "all of them"}.`, table(null, [
    { head: "process", value: (row) => row.name, show: (row) => [row.name, row.pid ? el("span", { class: "muted" }, ` pid ${row.pid}`) : "", row.processes && row.processes.count > 1 ? el("span", { class: "muted" }, `, ${row.processes.is_exact ? "" : "at least "}${count(row.processes.count)} processes`) : ""] },
    { head: "requests", kind: "count", value: (row) => row.count, path: (row) => `${base(row)}count` },
    { head: "merged", kind: "count", value: (row) => row.merged, path: (row) => `${base(row)}merged` },
    { head: "bytes", kind: "bytes", value: (row) => row.bytes, path: (row) => `${base(row)}bytes` },
    { head: "p99", kind: "duration", value: (row) => (row.latency_ns.p99 === undefined ? null : row.latency_ns.p99), path: (row) => `${base(row)}latency_ns.p99` },
    { head: "longest", kind: "duration", value: (row) => row.latency_ns.max, path: (row) => `${base(row)}latency_ns.max` },
    { head: "share above p99", kind: "percent", value: share("p99") },
    { head: "share of all", kind: "percent", value: share("all") },
    { head: "guest queue", kind: "percent", value: phaseShare("guest_queue") },
    { head: "in the disk", kind: "percent", value: phaseShare("device"), show: unknown(phaseShare("device"), "percent") },
    { head: "inactivity", kind: "duration", value: inactivity, show: unknown(inactivity, "duration") },
    { head: "share", kind: "percent", value: (row) => (inactivity(row) === null ? null : inactivity(row) / row.classes[name].latency_ns) },
  ], rows));
}
