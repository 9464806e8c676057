// What is asked of the pages that have conditions side by side; `page.mjs` runs it.

import { deepStrictEqual as same, ok } from "node:assert";
import { readFileSync } from "node:fs";

export const comparisonCases = ({ open, close, answerOf, dataOf, openAll, readBack, into }) => {
  /** Each number that says from where it is has the value that is there, and its letters say so within their digits. */
  async function figuresAreThose(page, data) {
    await openAll(page);
    const shown = await page.evaluate(() => [...document.querySelectorAll("data[data-path]")].map((it) => [it.dataset.path, it.value, it.dataset.kind, it.textContent]));
    ok(shown.length > 10, `only ${shown.length} figures name their place`);
    for (const [path, value, kind, text] of shown) {
      const told = path.split(".").reduce((place, key) => (place === null ? null : place?.[key]), data);
      ok(told !== undefined, `${path} is not there`);
      same(value, told === null ? "" : String(told), path);
      if (kind === "plain" || told === null) continue;
      const digits = { duration: 0.0051 * told + 0.5, rate: 0.0051 * told + 0.5, percent: 0.00051, ratio: 0.0051, count: 0, per_second: told < 100 ? 0.051 : 0.51 }[kind];
      ok(Math.abs(readBack(kind, text) - told) <= digits || /^[<>]/.test(text), `${path}: ${text} is not ${told}`);
    }
  }

  /** The points of a metric's panel, line by line: the value and the place of each run. */
  const pointsOf = (page, metric) => page.evaluate((of) => [...document.querySelectorAll(`#metrics [data-metric="${of}"] .strip`)].map((strip) => [...strip.querySelectorAll(".dot")].map((dot) => [Number(dot.dataset.run), Number(dot.dataset.value)])), metric);

  const told = ({ runs, values }) => runs.map((run, at) => [run, values[at]]);
  const inOrder = (points) => [...points].sort((a, b) => a[0] - b[0]);

  return {
    /** Of `vslice compare`: all of the JSON's numbers are points, and its verdicts are there in words. */
    async comparedFigures(browser, files) {
      for (let at = 0; at < files.length; at += 2) {
        const page = await open(browser, files[at]);
        const comparison = JSON.parse(readFileSync(files[at + 1], "utf8"));
        const data = await dataOf(page);
        same(data.pairs[0].comparison, comparison, "the page's comparison is not that of --json");
        same(await answerOf(page), comparison.answer.sentence);
        await figuresAreThose(page, data);
        for (const [place, metric] of comparison.metrics.entries()) {
          const points = await pointsOf(page, metric.metric);
          same(points.map(inOrder), [told(metric.a), told(metric.b)], metric.metric);
          const words = data.pairs[0].words[place].verdict;
          ok((await page.locator(`#metrics [data-metric="${metric.metric}"] .versus`).textContent()).includes(words), words);
        }
        const rows = await page.locator("#numbers tbody tr").count();
        same(rows, comparison.metrics.length, "a row for each metric");
        same(await page.locator("#vcpus table tbody tr").count(), comparison.vcpus.flatMap((vcpu) => vcpu.metrics).length);
        const slices = [...comparison.a.timeslices, ...comparison.b.timeslices];
        same(await page.locator("#timeslices .slice").count(), slices.length);
        const runs = await page.locator("#runs").innerText();
        for (const run of [...comparison.a.runs, ...comparison.b.runs]) ok(runs.includes(run), `${run} is not among the runs`);
        for (const { path, reason } of [...comparison.a.left_out, ...comparison.b.left_out]) ok(runs.includes(path) && runs.includes(reason), `${path} is left out, and not told`);
        same(await page.locator("#text pre").first().textContent(), data.text);
        await close(page);
      }
    },

    /** Each condition has its line in each panel, and each pair its verdict and its text. */
    async experimentFigures(browser, [file]) {
      const page = await open(browser, file);
      const data = await dataOf(page);
      same([data.conditions.filter((it) => it.runs.length === 10).length, data.pairs.length], [8, 4]);
      await figuresAreThose(page, data);
      for (const [place, { metric }] of data.metrics.entries()) {
        const points = await pointsOf(page, metric);
        same(points.map(inOrder), data.conditions.filter((it) => it.runs.length > 0).map((it) => told(it.figures[place])), metric);
        same(await page.locator(`#metrics [data-metric="${metric}"] .versus`).count(), 4, metric);
      }
      const text = await page.locator("#page").innerText();
      for (const pair of data.pairs) ok(text.includes(pair.comparison.claim.sentence), pair.comparison.claim.sentence);
      for (const condition of data.conditions) ok(text.includes(condition.state), condition.state);
      same(await page.locator("#text pre").allTextContents(), [data.text, ...data.pairs.map((pair) => pair.text)]);
      await close(page);
    },

    /** A panel is one stop of the tab key; each point says its run and value, each interval its verdict. */
    async points(browser, files) {
      for (const file of files) {
        const page = await open(browser, file, { reducedMotion: "reduce" });
        const data = await dataOf(page);
        const panel = page.locator("#metrics .panel").first();
        same(await panel.locator("[tabindex='0']").count(), 1, "one stop");
        await panel.locator("[tabindex='0']").focus();
        const tip = page.locator(".tip");
        const first = await tip.textContent();
        ok(data.conditions[0].runs.some((run) => first.startsWith(run.split("/").pop())), first);
        await page.keyboard.press("ArrowRight");
        ok(await tip.textContent() !== first, "the arrow goes on");
        await page.keyboard.press("Escape");
        ok(await tip.isHidden());
        for (const shape of [".dot", ".interval"]) {
          await panel.locator(shape).last().hover();
          ok(await tip.isVisible(), `${shape}: hovering`);
        }
        ok((await tip.textContent()).includes(data.pairs.at(-1).words[0].verdict), await tip.textContent());
        await page.mouse.move(0, 0);
        await close(page);
      }
    },

    async begun(browser, [file]) {
      const page = await open(browser, file);
      ok((await page.locator("[role=alert]").textContent()).includes("30 of 80 runs are made."));
      const data = await dataOf(page);
      same([data.pairs.length, data.conditions.filter((it) => it.runs.length > 0).length], [1, 3]);
      same((await pointsOf(page, data.metrics[0].metric)).length, 3, "one that has no counterpart yet is there as well");
      await close(page);
    },

    /** What A and B differ in, and every warning, is there. */
    async doubtful(browser, [file]) {
      const page = await open(browser, file);
      const { comparison } = (await dataOf(page)).pairs[0];
      ok(comparison.warnings.length > 3);
      same(await page.locator("#warnings li").allTextContents(), comparison.warnings);
      const environment = await page.locator("#environment tbody tr").allTextContents();
      same(environment, ["QEMU7.2.228.0.1", "acceleratorkvm and tcgkvm"]);
      await close(page);
    },

    /** With one run on a side there is an effect, and nothing that repeats would say. */
    async thin(browser, [file]) {
      const page = await open(browser, file);
      same(await page.locator(".panel .interval").count(), 0);
      same(await page.locator("#numbers thead th").allTextContents(), ["metric", "mean of A", "mean of B", "B to A"]);
      const text = await page.locator("#page").innerText();
      ok(!/NaN|Infinity|undefined|null/.test(text), text);
      ok((await page.locator('[data-metric="bql_wait_ns_per_s"] .versus').textContent()).includes("from 0"));
      await close(page);
    },

    /** No test: the picture of the documents, for `screenshots`. */
    async comparisonPictures(browser, [file, directory]) {
      const page = await open(browser, file, { reducedMotion: "reduce" });
      await into(directory)(page, "comparison", "header", "#metrics .panel:nth-of-type(6)");
      await close(page);
    },
  };
};
