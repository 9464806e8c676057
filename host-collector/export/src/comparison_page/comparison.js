// The page: its data, and its sections in order.

const page = JSON.parse(document.getElementById("data").textContent);

/** Panels of vCPUs that are drawn; the table has all. */
const PANELS_MAX = 40;

/** What the names of all conditions end in is said once: ".native.none". */
const ENDING = commonEnding(page.command === "compare" ? [] : page.conditions.map((condition) => condition.name));

function commonEnding(names) {
  if (names.length < 2) return "";
  const pieces = names.map((name) => name.split("."));
  let length = 0;
  while (pieces.every((of) => of.length > length + 1 && of[of.length - 1 - length] === pieces[0][pieces[0].length - 1 - length])) length += 1;
  return length === 0 ? "" : `.${pieces[0].slice(-length).join(".")}`;
}

/** What a condition is called where there is little room. */
function nameOf(condition) {
  if (page.command === "compare") return page.conditions.indexOf(condition) === 0 ? "A" : "B";
  return condition.name.slice(0, condition.name.length - ENDING.length);
}

function titleOf(condition) {
  return page.command === "compare" ? `${nameOf(condition)} ${condition.name}` : condition.name;
}

/** Whether others are compared with it. */
function isBase(condition) {
  const place = page.conditions.indexOf(condition);
  return page.pairs.some((pair) => pair.a === place);
}

function runName(path) {
  return path.split("/").filter(Boolean).pop() || path;
}

function pairName(pair) {
  return `${nameOf(page.conditions[pair.b])} against ${nameOf(page.conditions[pair.a])}`;
}

function lineOf(place) {
  const condition = page.conditions[place];
  return { name: nameOf(condition), title: titleOf(condition), runs: condition.runs, isBase: isBase(condition) };
}

function draw() {
  const main = el("main");
  put(main, [pairsSection(), metricsSection(), numbersSection(), timeslicesSection(), vcpuSection(), runsSection(), environmentSection(), textSection()]);
  const header = el("header", null, opening(), contents(main));
  put(document.getElementById("page"), [header, main, tip]);
  document.title = `${page.title} \u2013 vslice`;
}

function opening() {
  const [only] = page.pairs.length === 1 ? page.pairs : [];
  const warnings = only ? only.comparison.warnings : [];
  return [
    el("h1", null, `vslice ${page.command}: ${page.title}`),
    el("p", { class: "answer", id: "answer" }, unbroken(page.sentence)),
    only && only.comparison.claim && el("p", { class: "claim" }, only.comparison.claim.sentence),
    el("p", { class: "facts" }, facts().join(" \u00b7 ")),
    page.partial && el("p", { class: "partial", role: "alert" }, el("strong", null, "Not finished. "), page.partial),
    warnings.length > 0 && el("div", { class: "warnings", id: "warnings" }, el("ul", null, warnings.map((text) => el("li", null, text)))),
  ];
}

function facts() {
  const runs = (n) => `${count(n)} run${n === 1 ? "" : "s"}`;
  const left = sum(page.conditions.map((condition) => condition.left_out.length));
  const warnings = sum(page.pairs.map((pair) => pair.comparison.warnings.length));
  const sides = page.command === "compare" ? page.conditions.map((condition) => `${runs(condition.runs.length)} of ${nameOf(condition)}`)
    : [`${count(page.conditions.length)} condition${page.conditions.length === 1 ? "" : "s"}`, `${runs(sum(page.conditions.map((condition) => condition.runs.length)))} that count`];
  return [...sides, left > 0 && `${count(left)} left out`, `${count(warnings)} warning${warnings === 1 ? "" : "s"}`].filter(Boolean);
}

/** What became of each pair of an experiment, in the words of the text. */
function pairsSection() {
  if (page.command === "compare") return null;
  return section("pairs", "Without and with an iothread", null, page.pairs.map((pair) => {
    const { claim, answer, warnings } = pair.comparison;
    return el("article", { class: "pairing" }, el("h3", null, pairName(pair)), claim && el("p", null, claim.sentence), page.pairs.length > 1 && el("p", null, answer.sentence),
      warnings.length > 0 && el("div", { class: "warnings" }, el("ul", null, warnings.map((text) => el("li", null, text)))));
  }));
}

function metricsSection() {
  if (page.metrics.length === 0) return null;
  const panels = page.metrics.map(({ metric, label, unit }, place) => panel({
    metric, label, unit,
    lines: page.conditions.map((condition, at) => ({ ...lineOf(at), figure: condition.figures[place], path: `conditions.${at}.figures.${place}.mean` })).filter((line) => line.runs.length > 0),
    pairs: pairsOf(metric),
  }));
  const compared = page.command === "compare" || page.pairs.length === 0 ? "" : " Each condition with an iothread is compared with the one that differs in that alone (A).";
  const ending = ENDING ? ` The names of all conditions end in ${ENDING}.` : "";
  return section("metrics", "Every run, metric by metric", `Hover over a point for its run, or go there with the tab key and along with the arrows. Each metric has its own scale.${compared}${ending}`,
    panelLegend(page.pairs.some(isDecidable), page.pairs.length > 0), el("div", { class: "panels" }, panels));
}

/** The pairs by the places of their lines, as conditions without runs have none. */
function pairsOf(metric) {
  const drawn = page.conditions.filter((condition) => condition.runs.length > 0);
  const line = (place) => drawn.indexOf(page.conditions[place]);
  return page.pairs.flatMap((pair) => {
    const place = pair.comparison.metrics.findIndex((record) => record.metric === metric);
    if (place < 0) return [];
    return [{ a: line(pair.a), b: line(pair.b), name: page.command === "compare" ? null : nameOf(page.conditions[pair.b]), compared: pair.comparison.metrics[place], words: pair.words[place] }];
  });
}

function textSection() {
  const pairs = page.command === "compare" ? [] : page.pairs.map((pair) => lazyText(`vslice compare: ${pairName(pair)}`, () => pair.text));
  return section("text", "The same as text", null, lazyText(`vslice ${page.command}`, () => page.text), pairs);
}

draw();
