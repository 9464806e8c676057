// A metric as a panel: each condition is a line, each of its runs a point on it, and a stroke their mean. On the line of B
// lies the interval of its difference from A, on the same scale: from A's mean, which is a dashed line through both. What
// counts as no difference is shaded around that.

const KIND_OF = { 1: "ratio", ns: "duration", "ns/s": "rate", "1/s": "per_second", share: "percent" };
const MARGIN = { relative: 0.05, difference: 0.01 };
const MARKS = { lower: "\u2193", higher: "\u2191", no_difference: "=", not_decided: "?" };

/** What a number of the text is on a page: with a true minus. */
function minus(words) {
  return words === null || words === undefined ? "\u2013" : words.replace(/-(?=[\d.])/g, "\u2212");
}

/** Where B's mean would be if it differed from A's by `effect`. */
function moved(mean, effect, scale) {
  return scale === "relative" ? mean * (1 + effect) : mean + effect;
}

/**
 * A panel of `{metric, label, unit, lines, pairs}`. A line is `{name, title, figure, runs, isBase, path}`, a pair
 * `{a, b, name, compared, words}` by places of lines.
 */
function panel(of) {
  const kind = KIND_OF[of.unit];
  const axis = axisOf(of);
  const items = [];
  const said = [];
  const lines = of.lines.map((line, place) => {
    const strip = el("div", { class: "strip" }, shades(of, place, axis));
    const figure = line.figure;
    for (const dot of figure ? dots(figure, axis) : []) {
      const item = el("span", { class: line.isBase ? "dot base" : "dot", style: { left: axis.at(dot.value), top: `calc(0.9rem + ${dot.level * 0.42}rem)` }, "data-value": dot.value, "data-run": dot.run });
      items.push(item);
      said.push([runName(line.runs[dot.run]), text(kind, dot.value), `${of.label}, ${line.title}`]);
      strip.append(item);
    }
    if (figure && figure.mean !== null && figure.values.length > 1) strip.append(el("i", { class: "mean", style: { left: axis.at(figure.mean) } }));
    for (const pair of of.pairs.filter((pair) => pair.b === place)) put(strip, [interval(of, pair, axis, items, said)]);
    const shown = figure && figure.mean !== null ? number(kind, figure.mean, line.path) : line.atLeast ? `at least ${text(kind, line.atLeast)}` : el("span", { class: "muted" }, "\u2013");
    const first = of.pairs.length > 1 && line.isBase && place > 0 ? " first" : "";
    strip.className += first;
    return [el("span", { class: `label${first}`, title: line.title }, line.name), strip, el("span", { class: `value${first}` }, shown)];
  });
  tell(items, (index) => said[index]);
  const isLong = of.lines.some((line) => line.name.length > 4);
  return el("figure", { class: "panel", "data-metric": of.metric }, el("h3", null, of.label),
    el("div", { class: isLong ? "strips long" : "strips", role: "group", "aria-label": of.label }, lines, el("span"), axisLine(axis, kind, isLong ? 3 : 4), el("span")),
    of.pairs.map((pair) => el("p", { class: "versus" }, verdict(pair))));
}

function text(kind, value) {
  return number(kind, value, null).textContent;
}

/** The verdict in the words of the text, with the effect and its interval. */
function verdict(pair) {
  const { words, compared } = pair;
  const state = compared.verdict.state;
  const decided = state === "lower" || state === "higher";
  const more = words.effect === null ? [] : [minus(words.effect), words.interval && minus(words.interval), words.p && compared.interval && `p ${words.p}`];
  return [el("span", { class: "mark", "aria-hidden": "true" }, MARKS[state]), pair.name && [pair.name, ": "], el(decided ? "strong" : "span", null, words.verdict),
    el("span", { class: "effect muted" }, more.filter(Boolean).map((it) => el("span", null, it)))];
}

/** From the least to the most of all that is drawn, and not so near that what hardly differs looks as if it did. */
function axisOf(of) {
  const drawn = of.lines.flatMap((line) => (line.figure ? [...line.figure.values, line.figure.mean] : []));
  for (const { a, compared } of of.pairs) {
    const mean = of.lines[a].figure && of.lines[a].figure.mean;
    if (mean === null || mean === undefined) continue;
    const ends = compared.interval ? [compared.interval.low, compared.interval.high] : [];
    const margin = MARGIN[compared.scale];
    for (const effect of [...ends, margin, -margin]) if (effect !== null) drawn.push(moved(mean, effect, compared.scale));
  }
  const known = drawn.filter((value) => value !== null && value !== undefined);
  let [low, high] = known.length > 0 ? [Math.min(...known), Math.max(...known)] : [0, 1];
  const least = of.unit === "share" ? 0.04 : Math.abs(high) * 0.3 || 1;
  const room = Math.max((least - (high - low)) / 2, (high - low) * 0.04);
  low = Math.max(0, low - room);
  high = of.unit === "share" ? Math.min(1, high + room) : high + room;
  const at = (value) => `${Math.max(0, Math.min(100, ((value - low) / (high - low)) * 100))}%`;
  return { low, high, at };
}

function axisLine({ low, high, at }, kind, most) {
  const every = (size) => Array.from({ length: Math.floor(high / size) - Math.ceil(low / size) + 1 }, (_, at) => (Math.ceil(low / size) + at) * size);
  const few = every(step(high - low, most));
  // One number alone is no scale.
  const ticks = few.length > 1 ? few : every(step(high - low, 2 * most));
  const round = (value) => (kind === "duration" ? tick(value) : kind === "rate" ? `${tick(value)}/s` : kind === "percent" ? `${Number((value * 100).toPrecision(4))} %` : Number(value.toPrecision(4)).toLocaleString("en-US"));
  const place = (value) => ((value - low) / (high - low) > 0.88 ? "end" : (value - low) / (high - low) < 0.12 ? "start" : "");
  return el("div", { class: "axis", "aria-hidden": "true" }, ticks.map((value) => el("i", { style: { left: at(value) } })),
    ticks.map((value) => el("span", { class: place(value), style: { left: at(value) } }, value === 0 ? "0" : round(value))));
}

/** Each run's value, and on which of three levels it is drawn, so that those of equal runs are apart. */
function dots({ values, runs }, { low, high }) {
  const near = (high - low) * 0.028;
  const last = {};
  return values.map((value, place) => ({ value, run: runs[place] })).sort((x, y) => x.value - y.value).map((dot) => {
    const level = [0, -1, 1].find((it) => last[it] === undefined || dot.value - last[it] > near) ?? 0;
    last[level] = dot.value;
    return { ...dot, level };
  });
}

/** What lies behind the points of a line: no difference from the A of its pairs. */
function shades(of, place, axis) {
  const bases = new Set(of.pairs.filter((pair) => place >= Math.min(pair.a, pair.b) && place <= Math.max(pair.a, pair.b)).map((pair) => pair.a));
  return [...bases].map((base) => {
    const mean = of.lines[base].figure && of.lines[base].figure.mean;
    if (mean === null || mean === undefined) return null;
    const { scale } = of.pairs.find((pair) => pair.a === base).compared;
    const [from, to] = [-MARGIN[scale], MARGIN[scale]].map((margin) => axis.at(moved(mean, margin, scale)));
    return [el("i", { class: "margin", style: { left: from, right: `calc(100% - ${to})` } }), el("i", { class: "none", style: { left: axis.at(mean) } })];
  });
}

function interval(of, { a, compared, words, name }, axis, items, said) {
  const mean = of.lines[a].figure && of.lines[a].figure.mean;
  if (mean === null || mean === undefined || !compared.interval) return null;
  const { low, high } = compared.interval;
  const ends = [low === null ? "0%" : axis.at(moved(mean, low, compared.scale)), high === null ? "100%" : axis.at(moved(mean, high, compared.scale))];
  const item = el("span", { class: `interval ${compared.verdict.state}`, style: { left: ends[0], right: `calc(100% - ${ends[1]})` } });
  items.push(item);
  said.push([name ? `${name}: ${words.verdict}` : words.verdict, `${of.label} ${minus(words.effect)}`, `95 % interval ${minus(words.interval)}`, `p ${words.p}`]);
  return item;
}

/** What is read as a panel, once. */
function panelLegend(hasPairs, hasBase) {
  const entry = (shape, words) => el("li", null, el("span", { class: "sample", "aria-hidden": "true" }, shape), words);
  return el("ul", { class: "legend" },
    hasBase && entry(el("span", { class: "dot base" }), page.command === "compare" ? "a run of A" : "a run of A, without an iothread"),
    entry(el("span", { class: "dot" }), !hasBase ? "a run" : page.command === "compare" ? "a run of B" : "any other run"),
    entry(el("i", { class: "mean" }), "mean over the runs"),
    hasPairs && [entry([el("i", { class: "margin", style: { left: "15%", right: "15%" } }), el("i", { class: "none", style: { left: "50%" } })], "mean of A, and what counts as no difference from it"),
      entry(el("span", { class: "interval lower" }), "95 % interval of the difference, decided"), entry(el("span", { class: "interval not_decided" }), "not decided")]);
}
