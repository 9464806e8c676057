// The figures as tables, which sort: of each pair, of the vCPUs, of the conditions, the runs and what they were made under.

/** The columns of what is compared; `path` is the place of a row's figure. */
function comparedColumns(isDecided, path) {
  const kind = (row) => KIND_OF[row.compared.unit];
  const mean = (side) => ({
    head: `mean of ${side.toUpperCase()}`, kind: "plain", value: (row) => row.compared[side].mean,
    show: (row) => {
      const least = row.words.at_least && row.words.at_least[side === "a" ? 0 : 1];
      return least ? `at least ${text(kind(row), least)}` : number(kind(row), row.compared[side].mean, `${path(row)}.${side}.mean`);
    },
  });
  const told = (head, key, value, shown) => ({ head, kind: "plain", value, show: (row) => el("data", { value: value(row) ?? "", "data-kind": "plain", "data-path": `${path(row)}.${key}` }, shown(row)) });
  const columns = [mean("a"), mean("b"), told("B to A", "effect", (row) => row.compared.effect, (row) => minus(row.words.effect))];
  if (!isDecided) return columns;
  return [...columns,
    { head: "95 % interval", kind: "plain", value: (row) => row.compared.interval && row.compared.interval.low, show: (row) => minus(row.words.interval) },
    told("p", "rank_test.p", (row) => (row.compared.rank_test ? row.compared.rank_test.p : null), (row) => row.words.p || "\u2013"),
    { head: "verdict", value: (row) => row.words.verdict, class: "text", show: (row) => [el("span", { class: "mark", "aria-hidden": "true" }, MARKS[row.compared.verdict.state]), ["lower", "higher"].includes(row.compared.verdict.state) ? el("strong", null, row.words.verdict) : row.words.verdict] }];
}

/** Whether both sides have runs enough for intervals. */
function isDecidable(pair) {
  return pair.comparison.a.runs.length > 1 && pair.comparison.b.runs.length > 1;
}

function pairTitle(pair) {
  return page.command === "compare" ? null : el("h3", null, `${pairName(pair)}`);
}

function numbersSection() {
  const tables = page.pairs.map((pair, at) => {
    const rows = pair.comparison.metrics.map((compared, place) => ({ compared, words: pair.words[place], label: page.metrics.find((it) => it.metric === compared.metric).label, place }));
    const made = table(null, [{ head: "metric", value: (row) => row.label }, ...comparedColumns(isDecidable(pair), (row) => `pairs.${at}.comparison.metrics.${row.place}`)], rows, { all: true });
    return made && [pairTitle(pair), made];
  });
  const method = page.pairs.map((pair) => pair.method).find(Boolean);
  return section("numbers", "The same in numbers", method && `${method[0].toUpperCase()}${method.slice(1)}.`, overviewTable(), tables);
}

/** The conditions of an experiment with the mean of each metric and its interval, as the text has them. */
function overviewTable() {
  if (page.command === "compare") return null;
  const rows = page.conditions.map((condition, at) => ({ condition, at })).filter(({ condition }) => condition.figures.length > 0);
  const metrics = page.metrics.map((metric, place) => ({ metric, place })).filter(({ metric }) => metric.unit !== "share");
  const columns = metrics.map(({ metric, place }) => ({
    head: metric.label, kind: "plain", value: (row) => row.condition.figures[place].mean,
    show: (row) => {
      const { mean, interval } = row.condition.figures[place];
      const kind = KIND_OF[metric.unit];
      return [number(kind, mean, `conditions.${row.at}.figures.${place}.mean`), interval && el("div", { class: "muted" }, `[${text(kind, interval.low)}, ${text(kind, interval.high)}]`)];
    },
  }));
  return table("Mean over the runs, and its 95 % interval", [
    { head: "condition", value: (row) => row.condition.name, show: (row) => nameOf(row.condition) },
    { head: "runs", kind: "count", value: (row) => row.condition.runs.length }, ...columns], rows);
}

/** How long the vCPUs were off their pCPUs, and who ran meanwhile. */
function vcpuSection() {
  const rowsOf = (pair) => pair.comparison.vcpus.flatMap((vcpu, at) => vcpu.metrics.map((compared, place) => ({ vcpu, compared, words: pair.vcpu_words[at][place], path: `vcpus.${at}.metrics.${place}` })));
  const name = (row) => `${row.vcpu.vm} vCPU${row.vcpu.vcpu}`;
  const made = page.pairs.map((pair, at) => {
    const rows = rowsOf(pair);
    // What the requests waited for tells of their vCPU; where there are none, the vCPUs are all there is.
    const panels = pair.comparison.metrics.length > 0 ? [] : rows.slice(0, PANELS_MAX).map((row) => panel({
      metric: row.path, label: `${name(row)}: ${row.words.label}`, unit: row.compared.unit, pairs: [{ a: 0, b: 1, compared: row.compared, words: row.words }],
      lines: ["a", "b"].map((side, place) => ({ ...lineOf(pair[side]), figure: row.compared[side], path: `pairs.${at}.comparison.${row.path}.${side}.mean`, atLeast: row.words.at_least[place] })),
    }));
    const numbers = table(null, [{ head: "vCPU", value: name }, { head: "what", value: (row) => row.words.label, class: "text" },
      ...comparedColumns(isDecidable(pair), (row) => `pairs.${at}.comparison.${row.path}`)], rows);
    return numbers && [pairTitle(pair), panels.length > 0 && [panelLegend(isDecidable(pair), true), el("div", { class: "panels" }, panels)], numbers];
  });
  return section("vcpus", "vCPUs", "Time off their pCPUs, and who ran there meanwhile, per second of their time.", made);
}

/** Which runs count, which not and why, and where they are. */
function runsSection() {
  const rows = page.conditions.flatMap((condition) => [...condition.runs.map((path) => ({ condition, path, reason: null })), ...condition.left_out.map(({ path, reason }) => ({ condition, path, reason }))]);
  const states = page.command === "compare" ? null : table(null, [
    { head: "condition", value: (condition) => condition.name }, { head: "runs that count", kind: "count", value: (condition) => condition.runs.length },
    { head: "what became of it", value: (condition) => condition.state, class: "text" }], page.conditions, { all: true });
  return section("runs", "Runs", null, states, table(null, [
    { head: "condition", value: (row) => titleOf(row.condition), show: (row) => nameOf(row.condition) }, { head: "run", value: (row) => runName(row.path) },
    { head: "counts", value: (row) => (row.reason === null ? "yes" : "no") }, { head: "directory", value: (row) => row.path },
    { head: "why not", optional: true, value: (row) => row.reason, class: "text" }], rows));
}

function environmentSection() {
  const [differing, same] = [true, false].map((differs) => page.environment.filter((row) => row.differs === differs));
  const sides = page.conditions.map((condition, place) => ({ condition, place })).filter(({ condition }) => condition.runs.length > 0);
  const values = (row, place) => (row.values[place] || []).join(" and ");
  return section("environment", "Environment", differing.length > 0 ? "What is not the same in all runs:" : page.environment.length > 0 ? "All that is recorded of it is the same in all runs." : null,
    table(null, [{ head: "what", value: (row) => row.name, class: "text" }, ...sides.map(({ condition, place }) => ({ head: nameOf(condition), value: (row) => values(row, place), class: "text" }))], differing, { all: true }),
    same.length > 0 && el("details", null, el("summary", null, `The same in all runs: ${count(same.length)}`), table(null, [{ head: "what", value: (row) => row.name, class: "text" }, { head: "in all runs", value: (row) => values(row, sides[0].place), class: "text" }], same, { all: true })));
}
