// Timeslices of the reader's vCPU: a line for each run, from the 10th to the 90th percentile, on a logarithmic scale.

function timeslicesSection() {
  const shown = page.conditions.filter((condition) => condition.timeslices.length > 0);
  const all = shown.flatMap((condition) => condition.timeslices);
  if (all.length === 0) return null;
  const low = Math.max(1, Math.min(...all.map((it) => it.p10_ns)));
  const high = Math.max(low * 2, ...all.map((it) => it.p90_ns));
  const at = (ns) => Math.max(0, Math.min(100, (Math.log(Math.max(ns, 1) / low) / Math.log(high / low)) * 100));
  const blocks = shown.map((condition) => {
    const tracks = condition.timeslices.map((it) => el("div", { class: "slice", "data-run": it.run },
      el("i", { class: isBase(condition) ? "box base" : "box", style: { left: `${at(it.p10_ns)}%`, right: `${100 - Math.max(at(it.p10_ns), at(it.p90_ns))}%` } }), el("i", { class: "mid", style: { left: `${at(it.p50_ns)}%` } })));
    tell(tracks, (index) => {
      const it = condition.timeslices[index];
      return [runName(condition.runs[it.run]), `median ${duration(it.p50_ns)}`, `p10 ${duration(it.p10_ns)}, p90 ${duration(it.p90_ns)}`, titleOf(condition)];
    });
    return [el("span", { class: "label", title: condition.name }, nameOf(condition)), el("div", { class: "slices", role: "group", "aria-label": titleOf(condition) }, tracks)];
  });
  const rows = shown.flatMap((condition) => condition.timeslices.map((it, place) => ({ condition, it, path: `conditions.${page.conditions.indexOf(condition)}.timeslices.${place}.` })));
  return section("timeslices", "Timeslices of the reader's vCPU", "Each run from the 10th to the 90th percentile of its timeslices, with the median. The scale is logarithmic.",
    el("div", { class: "spreads" }, blocks, el("span"), decades(low, high, at)),
    el("details", null, el("summary", null, "In numbers"), table(null, [
      { head: "condition", value: (row) => row.condition.name, show: (row) => nameOf(row.condition) },
      { head: "run", value: (row) => runName(row.condition.runs[row.it.run]) },
      ...[["p10", "p10_ns"], ["median", "p50_ns"], ["p90", "p90_ns"]].map(([head, key]) => ({ head, kind: "duration", value: (row) => row.it[key], path: (row) => row.path + key })),
    ], rows)));
}

function decades(low, high, at) {
  const ticks = [];
  for (let ten = 10 ** Math.floor(Math.log10(low)); ten <= high; ten *= 10) {
    for (const times of high / low > 30 ? [1] : [1, 2, 5]) if (ten * times >= low && ten * times <= high) ticks.push(ten * times);
  }
  const place = (ns) => (at(ns) > 92 ? "end" : at(ns) < 8 ? "start" : "");
  return el("div", { class: "axis", "aria-hidden": "true" }, ticks.map((ns) => el("i", { style: { left: `${at(ns)}%` } })),
    ticks.map((ns) => el("span", { class: place(ns), style: { left: `${at(ns)}%` } }, tick(ns))));
}
