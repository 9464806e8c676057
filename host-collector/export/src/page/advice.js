// What would help by the figures of this run, and what would not; beside it what the percentiles would be without it.

const REMEDIES = { iothread: "an iothread", pinning: "pinning", faster_disk: "a faster disk", halt_polling: "halt polling" };
const PERCENTILES = { p50: "p50", p99: "p99", p999: "p99.9" };

function adviceSection() {
  const advice = summary.advice;
  if (!advice || groups.length === 0 || summary.evidence.level !== "recorded") return null;
  const about = `By the figures of this run alone${advice.of ? `, for ${advice.of}` : ""}. The gain is a bound: something may take the cause's place.`;
  const rows = advice.rows.map((row, place) => el("li", null, adviceRow(row, `advice.rows.${place}.`)));
  const vain = advice.would_not_help.map((row) => `${REMEDIES[row.remedy] || row.remedy} (${row.because})`);
  return section("advice", "What would help", about, rows.length > 0 && el("ol", { class: "advice" }, rows),
    rows.length === 0 && advice.none_because && el("p", null, `Nothing that the run could tell: ${advice.none_because}.`),
    vain.length > 0 && el("p", { class: "muted" }, `Would not help: ${vain.join("; ")}.`));
}

function adviceRow(row, path) {
  const gain = row.gain;
  const left = (ns) => gain.measured_ns - ns;
  const range = gain.least_ns !== gain.most_ns && `, between ${duration(left(gain.most_ns))} and ${duration(left(gain.least_ns))}`;
  return [el("strong", null, row.action), `: ${row.because}. `,
    el("span", { class: "muted" }, `${PERCENTILES[gain.percentile] || gain.percentile} of `, number("duration", gain.measured_ns, `${path}gain.measured_ns`), " would be ", number("duration", left(gain.told_ns), null), " at best", range || "", "."),
    row.command ? el("pre", { tabindex: 0 }, row.command) : el("div", { class: "muted" }, `No command, because ${row.no_command_because}.`)];
}
