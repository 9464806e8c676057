// Each vCPU: where its time went, how long its timeslices were, and who ran while it waited.

function vcpuSection() {
  // Where events were not recorded there is nothing of them to show; what was found otherwise is below.
  const rows = summary.evidence.level === "recorded" ? summary.vcpus || [] : [];
  return section("vcpus", "What each vCPU did", null, rows.length > 0 && timeBars(rows), rows.length > 0 && timeslices(rows),
    rows.length > 0 && offCpuTable(rows), rows.length > 0 && vcpuAntagonists(rows), scheduledTable(), sampledPart());
}

function timeBars(rows) {
  const used = new Map();
  const bars = rows.map((row) => {
    const pieces = [{ kind: "part", name: "on_pcpu", label: "on a pCPU", value: row.on_pcpu_ns }];
    for (const off of row.off_cpu) pieces.push({ kind: "part", name: reasonPart(off.reason), label: reasonLabel(off.reason), value: off.total_ns, more: [`${count(off.count)} times, longest ${duration(off.max_ns)}`] });
    pieces.forEach((piece) => piece.value > 0.002 * row.observed_ns && used.set(piece.name, true));
    return el("div", null, el("span", { class: "label" }, vcpuName(row)), stack(pieces, row.observed_ns || 1, "of its time"), el("span", { class: "value" }, row.observed_ns > 0 ? `${percent(row.on_pcpu_ns / row.observed_ns)} on a pCPU` : "nothing was recorded of it"));
  });
  const labels = { preempt_wait: "preempted, or its timeslice over", other_sleep: "other sleep", unknown: "unknown or not recorded" };
  return [el("h3", null, "On a pCPU, and why not"), el("div", { class: "bars" }, bars), legend(parts.filter((part) => used.has(part.name)).map((part) => ({ kind: "part", name: part.name, label: labels[part.name] || part.label })))];
}

function timeslices(rows) {
  const have = rows.filter((row) => row.timeslices.max_ns);
  if (have.length === 0) return null;
  const low = Math.log10(Math.max(1, Math.min(...have.map((row) => row.timeslices.p10_ns || row.timeslices.max_ns)))) - 0.1;
  const high = Math.log10(Math.max(...have.map((row) => row.timeslices.max_ns))) + 0.05;
  const at = (ns) => `${((Math.log10(Math.max(1, ns)) - low) / (high - low)) * 100}%`;
  const ticks = [];
  for (let decade = Math.ceil(low); decade <= high; decade += 1) ticks.push(10 ** decade);
  const bars = have.map((row) => {
    const slice = row.timeslices;
    const track = el("div", { class: "track" },
      el("span", { class: "whisker", style: { left: at(slice.p90_ns), right: `calc(100% - ${at(slice.max_ns)})` } }),
      el("span", { class: "box", style: { left: at(slice.p10_ns), right: `calc(100% - ${at(slice.p90_ns)})` } }),
      el("span", { class: "mid", style: { left: at(slice.p50_ns) } }), el("span", { class: "far", style: { left: at(slice.p99_ns) } }), el("span", { class: "far", style: { left: at(slice.max_ns) } }));
    tell([track], () => [`${vcpuName(row)}: ${count(slice.count)} timeslices`, `p10 ${duration(slice.p10_ns)}, p50 ${duration(slice.p50_ns)}, p90 ${duration(slice.p90_ns)}`, `p99 ${duration(slice.p99_ns)}, longest ${duration(slice.max_ns)}, mean ${duration(slice.mean_ns)}`]);
    return [el("span", { class: "small" }, vcpuName(row)), track];
  });
  const slice = (head, key, kind) => ({ head, kind: kind || "duration", value: (row) => row.timeslices[key], path: (row) => `vcpus.${rows.indexOf(row)}.timeslices.${key}` });
  return [el("h3", null, "How long it stayed on a pCPU at a time"),
    el("p", { class: "about" }, "From the 10th to the 90th percentile of its timeslices, the median as a bar; the line goes on to the 99th and the longest. Each step of the scale is ten times the one before."),
    el("div", { class: "spread" }, bars, el("span"), el("div", { class: "axis", "aria-hidden": "true" }, ticks.map((ns) => el("span", { class: parseFloat(at(ns)) > 92 ? "end" : null, style: { left: at(ns) } }, tick(ns))), ticks.map((ns) => el("i", { style: { left: at(ns) } })))),
    table(null, [{ head: "vCPU", value: vcpuName }, { head: "tid", kind: "plain", value: (row) => row.tid, path: (row) => `vcpus.${rows.indexOf(row)}.tid` },
      { head: "on a pCPU", kind: "percent", value: (row) => row.on_pcpu_ns / row.observed_ns },
      slice("timeslices", "count", "count"), slice("mean", "mean_ns"), slice("CV", "cv", "ratio"), slice("p10", "p10_ns"), slice("p50", "p50_ns"), slice("p90", "p90_ns"), slice("p99", "p99_ns"), slice("longest", "max_ns"),
      { head: "KVM polled", kind: "duration", optional: true, value: (row) => row.halt_poll_ns, path: (row) => `vcpus.${rows.indexOf(row)}.halt_poll_ns` },
      { head: "quota used up", kind: "count", optional: true, value: (row) => (row.quota ? row.quota.used_up_count : null) },
      { head: "kept off by it", kind: "duration", optional: true, value: (row) => (row.quota ? row.quota.kept_off_ns : null) }], rows)];
}

function offCpuTable(rows) {
  const lines = rows.flatMap((row, at) => row.off_cpu.map((off, place) => ({ row, off, path: `vcpus.${at}.off_cpu.${place}.` })).filter((line) => line.off.count > 0));
  if (lines.length === 0) return null;
  return [el("h3", null, "Why they were off a pCPU"), table(null, [
    { head: "vCPU", value: (line) => vcpuName(line.row) },
    { head: "reason", value: (line) => reasonLabel(line.off.reason), show: (line) => [swatch("part", reasonPart(line.off.reason)), reasonLabel(line.off.reason)] },
    { head: "", bar: true, kind: "bar", value: (line) => line.off.total_ns, show: (line) => bar(line.off.total_ns / line.row.observed_ns, partColour(reasonPart(line.off.reason))) },
    { head: "total", kind: "duration", value: (line) => line.off.total_ns, path: (line) => `${line.path}total_ns` },
    { head: "of its time", kind: "percent", value: (line) => line.off.total_ns / line.row.observed_ns },
    { head: "times", kind: "count", value: (line) => line.off.count, path: (line) => `${line.path}count` },
    { head: "mean", kind: "duration", value: (line) => Math.floor(line.off.total_ns / line.off.count) },
    { head: "longest", kind: "duration", value: (line) => line.off.max_ns, path: (line) => `${line.path}max_ns` },
  ], lines, { sorted: 3 })];
}

function vcpuAntagonists(rows) {
  const lines = [];
  rows.forEach((row, at) => {
    const base = `vcpus.${at}.`;
    row.antagonist_groups.forEach((group, place) => group.ran_ns > 0 && lines.push({ row, name: group.name, members: group.members.map((member) => `${member.name} ${duration(member.ran_ns)} (${percent(member.ran_ns / row.wait_ns)})`).join(", "), kind: kindLabel(group.kind), crowd: crowd(group), ran_ns: group.ran_ns, path: `${base}antagonist_groups.${place}.ran_ns` }));
    for (const [key, label] of [["other_groups_ns", "others"], ["idle_ns", "nobody: the pCPU was idle"], ["unseen_ns", "not seen"]]) if (row[key] > 0) lines.push({ row, name: label, members: "", kind: "", crowd: "", ran_ns: row[key], path: base + key });
  });
  if (lines.length === 0) return null;
  return [el("h3", null, "Who ran while they waited"), table(null, [
    { head: "vCPU", value: (line) => vcpuName(line.row) },
    { head: "who", value: (line) => line.name },
    { head: "", bar: true, kind: "bar", value: (line) => line.ran_ns, show: (line) => bar(line.ran_ns / line.row.wait_ns, "var(--preempt_wait)") },
    { head: "ran", kind: "duration", value: (line) => line.ran_ns, path: (line) => line.path },
    { head: "of its waits", kind: "percent", value: (line) => line.ran_ns / line.row.wait_ns },
    { head: "kind", value: (line) => line.kind },
    { head: "threads", value: (line) => line.crowd },
    { head: "longest", value: (line) => line.members, class: "text" },
  ], lines, { sorted: 3 }), threadTable(rows.flatMap((row, at) => row.antagonists.map((entry, place) => ({ ...entry, wait_ns: row.wait_ns, waited: vcpuName(row), path: `vcpus.${at}.antagonists.${place}.` }))), [{ head: "vCPU", value: (entry) => entry.waited }])];
}

/** The kernel's own totals, of runs that did not record each event. */
function scheduledTable() {
  const rows = summary.scheduled || [];
  if (rows.length === 0) return null;
  const path = (key) => (row) => `scheduled.${rows.indexOf(row)}.${key}`;
  return [el("h3", null, "Run delay, by the kernel's own totals"),
    el("div", { class: "bars" }, rows.map((row) => el("div", null, el("span", { class: "label" }, vcpuName(row)),
      stack([{ kind: "part", name: "on_pcpu", label: "on a pCPU", value: row.on_pcpu_ns }, { kind: "part", name: "wakeup_delay", label: "ready, waiting for a pCPU", value: row.run_delay_ns }, { kind: "part", name: "halt", label: "asleep", value: Math.max(0, row.observed_ns - row.on_pcpu_ns - row.run_delay_ns) }], row.observed_ns || 1, "of its time"),
      el("span", { class: "value" }, `${percent(row.run_delay_ns / row.observed_ns)} waiting`)))),
    legend([{ kind: "part", name: "on_pcpu", label: "on a pCPU" }, { kind: "part", name: "wakeup_delay", label: "ready, waiting for a pCPU" }, { kind: "part", name: "halt", label: "asleep" }]),
    table(null, [{ head: "vCPU", value: vcpuName }, { head: "tid", kind: "plain", value: (row) => row.tid, path: path("tid") },
      { head: "on a pCPU", kind: "duration", value: (row) => row.on_pcpu_ns, path: path("on_pcpu_ns") }, { head: "share", kind: "percent", value: (row) => row.on_pcpu_ns / row.observed_ns },
      { head: "run delay", kind: "duration", value: (row) => row.run_delay_ns, path: path("run_delay_ns") }, { head: "share", kind: "percent", value: (row) => row.run_delay_ns / row.observed_ns },
      { head: "timeslices", kind: "count", value: (row) => row.timeslices, path: path("timeslices") }, { head: "mean", kind: "duration", value: (row) => row.timeslice_mean_ns, path: path("timeslice_mean_ns") }], rows)];
}

function sampledPart() {
  const sampled = summary.sampled;
  if (!sampled) return null;
  const rows = sampled.vcpus.flatMap((row, at) => row.shares.map((share, place) => ({ row, share, path: `sampled.vcpus.${at}.shares.${place}.` })));
  return [el("h3", null, "Sampled reasons"),
    el("p", { class: "about" }, `Shares of the samples of a vCPU, not counts of events: each was looked at ${count(Number(fixed(sampled.rounds_hz, 0)))} times a second. ${sampled.gaps > 0 ? `${count(sampled.gap_rounds)} rounds in ${count(sampled.gaps)} gaps were missed, ${duration(sampled.gaps_ns)} in all.` : "No round was missed."}`),
    table(null, [{ head: "vCPU", value: (line) => vcpuName(line.row) },
      { head: "state", value: (line) => reasonLabel(line.share.what), show: (line) => [swatch("part", reasonPart(line.share.what)), reasonLabel(line.share.what)] },
      { head: "", bar: true, kind: "bar", value: (line) => line.share.share, show: (line) => bar(line.share.share, partColour(reasonPart(line.share.what))) },
      { head: "share", kind: "percent", value: (line) => line.share.share, path: (line) => `${line.path}share` },
      { head: "95 % from", kind: "percent", value: (line) => line.share.low, path: (line) => `${line.path}low` }, { head: "to", kind: "percent", value: (line) => line.share.high, path: (line) => `${line.path}high` },
      { head: "samples", kind: "count", value: (line) => line.share.looks, path: (line) => `${line.path}looks` }, { head: "lock", value: (line) => hex(line.share.lock_address) }], rows)];
}
