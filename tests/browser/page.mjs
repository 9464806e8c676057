// One test of the HTML pages, in headless Chromium: `node page.mjs CASE PAGE...`. It prints what is wrong and fails, or
// prints nothing. playwright-core is in the directory that $VSLICE_BROWSER names, where `.ci/install-needs test` puts it.

import { createRequire } from "node:module";
import { deepStrictEqual as same, ok } from "node:assert";
import { basename, join } from "node:path";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { comparisonCases } from "./comparison.mjs";

const { chromium } = createRequire(join(process.env.VSLICE_BROWSER, "package.json"))("playwright-core");
const PROGRAM = process.env.VSLICE_CHROMIUM || "/usr/bin/chromium";
// Tests run as root, where Chromium has no sandbox; the others keep it from asking the network for anything.
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

const WIDTHS = [400, 1000, 2000];
const THEMES = ["light", "dark"];

/** Opens a page, in which nothing may go wrong and which may ask for nothing but itself. */
async function open(browser, file, { width = 1000, theme = "light", ...more } = {}) {
  const page = await browser.newPage({ viewport: { width, height: 900 }, colorScheme: theme, ...more });
  const wrong = [];
  const address = pathToFileURL(file).href;
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && wrong.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => wrong.push(error.stack));
  page.on("request", (request) => request.url() !== address && wrong.push(`asked for ${request.url()}`));
  page.on("dialog", (dialog) => {
    wrong.push(`a dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  await page.goto(address);
  await page.waitForSelector("#answer");
  page.wrong = wrong;
  return page;
}

async function close(page) {
  same(page.wrong, [], "the console says");
  await page.close();
}

/** The sentence that answers, in which no number is parted from its unit at a line's end. */
async function answerOf(page) {
  const shown = await page.locator("#answer").textContent();
  ok(!/\d (%|[num\u00b5]?s\b)/.test(shown), shown);
  return shown.replaceAll("\u00a0", " ");
}

const dataOf = (page) => page.evaluate(() => JSON.parse(document.getElementById("data").textContent));
const openAll = (page) => page.evaluate(() => document.querySelectorAll("details").forEach((fold) => { fold.open = true; }));

/** What a number on the page is worth, read back from its letters. */
function readBack(kind, text) {
  const words = text.replaceAll(",", "").replace("\u2212", "-").replace("/s", "").trim().split(/\s+/);
  const unit = { ns: 1, "\u00b5s": 1e3, ms: 1e6, s: 1e9, B: 1, kB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12, "%": 0.01 }[words[1]];
  return Number(words[0].replace("<", "")) * (unit ?? 1);
}

// A figure of the text: a number with its unit, or one of three digits or more.
const FIGURE = /(?<![\w.,/:-])([<>]?)(-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)(?: (ns|us|\u00b5s|ms|s|%|B|kB|MB|GB|TB|kHz|MHz|GHz|IOPS)(?!\w)|(?![\w/-]|[.:]\w))/g;
const UNITS = { ns: ["time", 1], us: ["time", 1e3], "\u00b5s": ["time", 1e3], ms: ["time", 1e6], s: ["time", 1e9], B: ["bytes", 1], kB: ["bytes", 1e3], MB: ["bytes", 1e6], GB: ["bytes", 1e9], TB: ["bytes", 1e12] };

function figuresIn(text) {
  return [...text.replaceAll("\u2212", "-").replace(/\s+/g, " ").matchAll(FIGURE)].filter(([, , digits, unit]) => unit || /^[\d,]{3,}$/.test(digits)).map(([said, sign, digits, unit]) => {
    const plain = digits.replaceAll(",", "");
    const [of, size] = UNITS[unit] || [unit || "number", 1];
    return { said, of: `${sign}${of}`, value: Number(plain) * size, size, last: size / 10 ** (plain.split(".")[1] || "").length };
  });
}

/** Whether a figure of the page, which may have more digits, is that of the text. */
function says(there, figure) {
  return there.last <= figure.last * 1.0001 && Math.abs(there.value - figure.value) <= (there.last === figure.last ? 1e-6 * figure.last : 0.5001 * figure.last);
}

// What the text has and the page does not, and why that is right.
const ABSENT = [
  [/^ *(vdb?\w* |vm\d )?others? /, "the text adds up small rows, each of which the page has"],
  [/\(\d+ shorter spans\)/, "the text adds up short spans, each of which the page draws"],
];

/** Everything that the page shows of all groups and ways, without the text and what is the text's own sentence. */
async function shownOn(page) {
  return page.evaluate(() => {
    const shown = [];
    const take = () => {
      document.querySelectorAll("details").forEach((fold) => { fold.open = true; fold.dispatchEvent(new Event("toggle")); });
      const walk = (node) => {
        if (node.nodeType === Node.TEXT_NODE) return node.data;
        if (["answer", "warnings", "text"].includes(node.id) || node.matches("#environment details")) return "";
        const inside = [...node.childNodes].map(walk).join("");
        const told = node.ariaLabel ? ` | ${node.ariaLabel} | ` : "";
        return getComputedStyle(node).display.startsWith("inline") && !["TD", "TH"].includes(node.tagName) ? `${told}${inside}` : ` | ${told}${inside} | `;
      };
      shown.push(walk(document.getElementById("page")));
    };
    const ways = () => {
      take();
      for (const radio of document.querySelectorAll("input[type=radio]:not(:checked)")) {
        radio.click();
        take();
      }
    };
    const select = document.getElementById("group");
    if (!select) ways();
    else for (const option of select.options) {
      select.value = option.value;
      select.dispatchEvent(new Event("change"));
      ways();
    }
    return shown.join(" | ");
  });
}

/** Each group of requests is printed once, the chosen one first, and what is folded with it. */
async function printed(page, groups) {
  ok(groups.length > 1, "one group alone shows nothing");
  const latencies = () => page.locator("#latency h2").allTextContents();
  const before = await latencies();
  await page.evaluate(() => dispatchEvent(new Event("beforeprint")));
  const onPaper = await latencies();
  same([new Set(onPaper).size, onPaper[0]], [groups.length, before[0]], "each group once, the chosen one first");
  same(await page.locator("#tail details:not([open]), #who details:not([open])").count(), 0);
  await page.evaluate(() => dispatchEvent(new Event("afterprint")));
  same(await latencies(), before);
  same(await page.locator("#tail details[open], #who details[open]").count(), 0);
}

const CASES = {
  /** What the text says, the page has: in its tables, its sentences, or what it tells of what it draws. */
  async text(browser, files) {
    for (const file of files) {
      const page = await open(browser, file);
      const data = await dataOf(page);
      const { sentence } = data;
      const [full_text, warnings] = data.pairs ? [data.text, data.pairs[0].comparison.warnings] : [data.full_text, data.warnings];
      same(await answerOf(page), sentence);
      const told = [sentence, ...warnings.map((text) => `warning: ${text}`)].map((text) => text.replace(/\s+/g, " "));
      const lines = full_text.split("\n").filter((line) => line.trim() !== "" && !told.some((text) => text.includes(line.trim())));
      const there = figuresIn(await shownOn(page));
      const missing = [];
      let count = 0;
      for (const line of lines.filter((line) => !ABSENT.some(([of]) => of.test(line)))) {
        for (const figure of figuresIn(line)) {
          count += 1;
          if (!there.some((other) => other.of === figure.of && says(other, figure))) missing.push(`${figure.said}: ${line}`);
        }
      }
      same(missing, [], `${basename(file)}: of ${count} figures of the text the page has not`);
      ok(count >= 10, `${basename(file)}: ${count} figures`);
      await close(page);
    }
  },

  /** Each number that says from where it is has the summary's value, and its letters say so within their digits. */
  async figures(browser, files) {
    for (let at = 0; at < files.length; at += 2) {
      const page = await open(browser, files[at]);
      const summary = JSON.parse(readFileSync(files[at + 1], "utf8"));
      same((await dataOf(page)).summary, summary, "the page's summary is not that of --json");
      await openAll(page);
      const shown = await page.evaluate(() => [...document.querySelectorAll("data[data-path]")].map((it) => [it.dataset.path, it.value, it.dataset.kind, it.textContent]));
      ok(shown.length > 20, `only ${shown.length} figures name their place`);
      for (const [path, value, kind, text] of shown) {
        const told = path.split(".").reduce((place, key) => place?.[key], summary);
        ok(told !== undefined, `${path} is not in the summary`);
        same(value, told === null ? "" : String(told), path);
        if (told === null) same(text, "\u2013", path);
        else if (kind !== "plain") {
          const error = Math.abs(readBack(kind, text) - told);
          const digits = kind === "percent" ? 0.00051 : kind === "count" ? 0 : kind === "ratio" ? 0.0051 : 0.0051 * told + 0.5;
          ok(error <= digits || /^[<>]/.test(text), `${path}: ${text} is not ${told}`);
        }
      }
      await close(page);
    }
  },

  /** A click or the keyboard sorts a table, and a second one turns it round; what it was is what is sorted. */
  async sorting(browser, files) {
    let sorted = 0;
    for (const file of files) sorted += await sorts(browser, file);
    ok(sorted >= 3, `only ${sorted} tables could be sorted`);
  },

  /** A stretch of time is chosen by mouse, keyboard and number, and what began in it is counted. */
  async selecting(browser, [file]) {
    const page = await open(browser, file);
    const { groups, window_ns } = await dataOf(page);
    const { start_us } = groups[0].sample;
    const counted = () => page.locator("#chosen").getAttribute("data-count").then(Number);
    const range = async () => [Number(await page.locator("#from").inputValue()) * 1e6, Number(await page.locator("#to").inputValue()) * 1e6];
    const within = ([from, to]) => start_us.filter((us) => us >= from && us <= to).length;
    same(await counted(), start_us.length, "all at first");
    const plot = page.locator("#plot");
    await plot.scrollIntoViewIfNeeded();
    const box = await plot.boundingBox();
    await page.mouse.move(box.x + box.width * 0.3, box.y + 80);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.5, box.y + 90, { steps: 4 });
    await page.mouse.move(box.x + box.width * 0.62, box.y + 90, { steps: 4 });
    await page.mouse.up();
    const dragged = await range();
    ok(dragged[0] > 0 && dragged[1] > dragged[0] && dragged[1] < window_ns / 1000, `dragged ${dragged}`);
    const inIt = await counted();
    ok(Math.abs(inIt - within(dragged)) <= 1, `${inIt} in ${dragged}`);
    ok(inIt < start_us.length, "a part of them");
    await page.keyboard.press("Escape");
    await plot.focus();
    await page.keyboard.press("Escape");
    same(await counted(), start_us.length, "escape shows all");
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowRight");
    const moved = await range();
    await page.keyboard.press("Shift+ArrowRight");
    const longer = await range();
    ok(longer[1] > moved[1] && longer[0] === moved[0], `shift lengthens: ${moved} to ${longer}`);
    const whole = [Math.min(...start_us) / 1e6 - 1, Math.max(...start_us) / 1e6 + 1];
    await page.locator("#from").fill(String(whole[0]));
    await page.locator("#from").press("Enter");
    await page.locator("#to").fill(String(whole[1]));
    await page.locator("#to").press("Enter");
    same(await counted(), start_us.length, "by numbers");
    await page.locator("#clear").click();
    same(await page.locator("#from").inputValue(), "");
    await close(page);
  },

  /** The shares of a stretch are sums of all its requests: those of two that touch add up, and by any way it is the same time. */
  async shares(browser, [file]) {
    const page = await open(browser, file);
    const { groups } = await dataOf(page);
    const sum = (list) => list.reduce((total, of) => total + of, 0);
    const all = sum(groups[0].bands.map((band) => band.latency_ns));
    const told = async () => {
      const values = await page.locator("#time .chosen .stack > *").evaluateAll((pieces) => pieces.map((it) => Number(it.dataset.value)));
      const said = page.locator("#shares");
      const [requests, total] = [Number(await said.getAttribute("data-requests")), Number(await said.getAttribute("data-total"))];
      same(sum(values), total, "the pieces are the whole");
      return { requests, total, text: await said.textContent() };
    };
    const choose = async (from, to) => {
      await page.evaluate(() => document.getElementById("clear").click());
      for (const [id, value] of [["#from", from], ["#to", to]]) {
        await page.locator(id).fill(String(value));
        await page.locator(id).press("Enter");
      }
      return told();
    };
    const whole = await told();
    same([whole.requests, whole.total], [groups[0].count, all]);
    ok(!whole.text.includes("steps"), whole.text);
    const { length_ns, places } = groups[0].over_time;
    // What ends where a step begins has nothing of it.
    const between = places.at(-1) * length_ns / 1e9;
    const first = await choose(-1, between);
    const second = await choose(between, 9);
    same([first.requests + second.requests, first.total + second.total], [whole.requests, whole.total]);
    ok(first.requests > 0 && second.requests > 0);
    // Half a step is rounded to one, and it is said so.
    const at = places[0] * length_ns;
    const half = await choose((at + length_ns / 4) / 1e9, (at + length_ns / 2) / 1e9);
    ok(half.text.includes("in whole steps of"), half.text);
    same(half.total, first.total, "the only one that began in it");
    for (const way of await page.locator("#time .controls.by input").all()) {
      await way.check({ force: true });
      same((await told()).total, half.total);
    }
    await close(page);
  },

  /** The bars and lanes give their numbers to the keyboard as to the mouse. */
  async keyboard(browser, [file]) {
    const page = await open(browser, file, { reducedMotion: "reduce" });
    for (const place of ["#tail .stack", "#worst .lane", "#worst .whiskers", "#vcpus .stack"]) {
      const stack = page.locator(place).first();
      const pieces = stack.locator("> [aria-label]");
      ok(await pieces.count() > 0, `${place} has no pieces`);
      same(await stack.locator("> [tabindex='0']").count(), 1, `${place} is one stop`);
      await stack.locator("> [tabindex='0']").focus();
      const said = await page.locator(".tip").textContent();
      ok(/\d.*(ns|\u00b5s|ms| s)/.test(said), `${place} says ${said}`);
      if (await pieces.count() > 1) {
        await page.keyboard.press("ArrowRight");
        ok(await page.locator(".tip").textContent() !== said, `${place}: the arrow goes on`);
      }
      await page.keyboard.press("Escape");
      ok(await page.locator(".tip").isHidden());
      const widths = await pieces.evaluateAll((all) => all.map((it) => it.clientWidth));
      await pieces.nth(widths.indexOf(Math.max(...widths))).hover();
      ok(await page.locator(".tip").isVisible(), `${place}: hovering`);
      await page.mouse.move(0, 0);
    }
    await close(page);
  },

  /** What a guest or a process calls itself is text. */
  async markup(browser, [file, ...names]) {
    const page = await open(browser, file);
    await openAll(page);
    const found = await page.evaluate(() => ({
      scripts: document.scripts.length, images: document.images.length, frames: document.querySelectorAll("iframe, object, embed, form, base, link").length,
      bold: [...document.querySelectorAll("u, marquee")].length, ran: window.pwned, text: document.body.innerText, title: document.title,
    }));
    same([found.scripts, found.images, found.frames, found.bold, found.ran], [2, 0, 0, 0, undefined]);
    for (const name of names) ok(found.text.includes(name), `${name} is not in the text of the page`);
    await close(page);
  },

  async partial(browser, [file]) {
    const page = await open(browser, file);
    ok((await page.locator("[role=alert]").textContent()).includes("Partial run"));
    const { summary } = await dataOf(page);
    ok((await page.locator("[role=alert]").textContent()).includes(summary.status.reason));
    ok(!(await page.locator("#honest").textContent()).includes("every scheduler event was recorded"));
    await close(page);
  },

  /** Without requests there is no latency, no tail and no request, and it is said so. */
  async without(browser, files) {
    for (const file of files) {
      const page = await open(browser, file);
      for (const id of ["latency", "tail", "time", "worst", "who"]) same(await page.locator(`#${id}`).count(), 0, id);
      ok((await page.locator("#requests").textContent()).includes("No request was recorded"));
      ok(await page.locator("#vcpus").count() === 1);
      await close(page);
    }
  },

  /** A sampled run has shares with their intervals, and no counts of events. */
  async sampled(browser, [file]) {
    const page = await open(browser, file);
    const { summary } = await dataOf(page);
    const text = await page.locator("#vcpus").innerText();
    ok(text.includes("Sampled reasons") && text.includes("Run delay"), text);
    same(await page.locator("#vcpus data[data-path$='.low']").count(), summary.sampled.vcpus.flatMap((row) => row.shares).length);
    ok((await page.locator("#honest").textContent()).includes("sampled, because"));
    same(await page.locator("#locks table").count(), 0);
    ok(!(await page.locator("#page").innerText()).includes("No vCPU was seen"), "what was not recorded is not said to be none");
    await close(page);
  },

  async four(browser, [file]) {
    const page = await open(browser, file);
    const { summary } = await dataOf(page);
    const vms = [...new Set(summary.vcpus.map((row) => row.vm))];
    same(vms.length, 4, `the VMs are ${vms}`);
    ok((await page.locator(".facts").textContent()).includes("4 guests"));
    same(await page.locator("#vcpus .bars .label").allTextContents(), summary.vcpus.map((row) => `${row.vm} vCPU${row.vcpu}`));
    await close(page);
  },

  /** No page is wider than its window, in either theme, and each part's colour stands out from what is behind it. */
  async shapes(browser, files) {
    for (const file of files) {
      for (const theme of THEMES) {
        for (const width of WIDTHS) {
          const page = await open(browser, file, { width, theme, reducedMotion: "reduce" });
          await openAll(page);
          const wide = await page.evaluate(() => document.documentElement.scrollWidth);
          ok(wide <= width, `${basename(file)} is ${wide} wide at ${width}, ${theme}`);
          const grey = await page.evaluate(() => [...document.querySelectorAll(".swatch, .stack > *, .lane > *")].filter((it) => it.style.getPropertyValue("--c") === "var(--unknown)" && !it.classList.contains("hatched")).map((it) => it.ariaLabel || it.parentElement.textContent));
          same(grey, [], "known, and drawn as if unknown");
          if (width === 1000) await colours(page, theme, await drawnColours(page));
          await close(page);
        }
      }
    }
  },

  /** On paper every group and row is there, and nothing that can only be clicked. */
  async paper(browser, [file]) {
    const page = await open(browser, file, { theme: "dark" });
    const { groups } = await dataOf(page);
    if (groups) await printed(page, groups);
    await page.emulateMedia({ media: "print", colorScheme: "dark" });
    same(await page.locator(".controls:visible, nav:visible").count(), 0);
    same(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), "rgb(255, 255, 255)");
    ok((await page.pdf({ format: "A4" })).length > 10_000);
    await page.close();
  },
};

/** Takes what is from one element to another on a page. */
const into = (directory) => async (page, name, first, last) => {
  const [top, bottom] = await page.evaluate(([from, to]) => [document.querySelector(from), document.querySelector(to)].map((it, at) => it.getBoundingClientRect()[["top", "bottom"][at]] + scrollY), [first, last]);
  const clip = { x: 0, y: Math.max(0, top - 24), width: page.viewportSize().width, height: Math.min(1500, bottom - top + 48) };
  await page.screenshot({ path: join(directory, `${name}.png`), fullPage: true, clip });
};

/** No test: the pictures of the documents, for `screenshots`. */
CASES.pictures = async (browser, [file, directory]) => {
  const still = { reducedMotion: "reduce" };
  const take = into(directory);
  const light = await open(browser, file, still);
  await take(light, "page-tail", "header", "#tail figure");
  await take(light, "page-who", "#who", "#who .wide");
  await close(light);
  // Dots are all that a picture has to keep, so it is a small one.
  const small = await open(browser, file, { ...still, theme: "dark", width: 620 });
  await take(small, "page-over-time", "#time", "#time .chosen");
  await close(small);
  const dark = await open(browser, file, { ...still, theme: "dark" });
  await take(dark, "page-slowest", "#worst", "#worst .worst:nth-of-type(2)");
  await close(dark);
};

async function sorts(browser, file) {
  const page = await open(browser, file);
  await openAll(page);
  const tables = await page.locator("table:visible").count();
  let sorted = 0;
  for (let at = 0; at < tables; at += 1) {
    const table = page.locator("table:visible").nth(at);
    if (await table.locator("tbody tr").count() < 2) continue;
    const column = await table.evaluate((it) => [...it.tHead.rows[0].cells].findIndex((head, place) => [...it.tBodies[0].rows].every((row) => row.cells[place].querySelector("data:not([value=''])"))));
    if (column < 0) continue;
    const values = () => table.evaluate((it, place) => [...it.tBodies[0].rows].filter((row) => row.className !== "total").map((row) => Number(row.cells[place].querySelector("data").value)), column);
    const button = table.locator("thead th").nth(column).locator("button");
    await button.focus();
    const before = await table.locator("thead th").nth(column).getAttribute("aria-sort");
    await page.keyboard.press("Enter");
    const first = await values();
    await button.click();
    const second = await values();
    const falling = (list) => [...list].sort((a, b) => b - a);
    const [down, up] = before === "descending" ? [second, first] : [first, second];
    same(down, falling(down), "falling");
    same(up, falling(up).reverse(), "rising");
    same(await table.locator("thead th[aria-sort]").count(), 1);
    sorted += 1;
  }
  await close(page);
  return sorted;
}

/** What a page is drawn in, beside its text. */
async function drawnColours(page) {
  const { parts, phases } = await dataOf(page);
  return parts ? [...parts.map((part) => part.name), ...phases.map((phase) => `phase-${phase.name}`)] : ["accent"];
}

/** WCAG 2.2, 1.4.11: what is drawn differs from what is beside it by 3 to 1; text by 4.5 to 1 (1.4.3). */
async function colours(page, theme, names) {
  const value = (name) => page.evaluate((it) => getComputedStyle(document.documentElement).getPropertyValue(`--${it}`).trim(), name);
  const light = (colour) => {
    const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  const behind = [await value("bg"), await value("surface")];
  const seen = new Map();
  for (const name of names) {
    const colour = await value(name);
    ok(/^#[0-9a-f]{6}$/.test(colour), `--${name} is ${colour}`);
    for (const ground of behind) ok(contrast(colour, ground) >= 2.85, `--${name} ${colour} on ${ground} is ${contrast(colour, ground).toFixed(2)} to 1, ${theme}`);
    if (!name.startsWith("phase-")) {
      ok(!seen.has(colour), `--${name} has the colour of --${seen.get(colour)}`);
      seen.set(colour, name);
    }
  }
  for (const ground of behind) {
    ok(contrast(await value("ink"), ground) >= 7, "text");
    ok(contrast(await value("muted"), ground) >= 4.5, "muted text");
  }
}

Object.assign(CASES, comparisonCases({ open, close, answerOf, dataOf, openAll, readBack, into }));

const [name, ...files] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath: PROGRAM, args: FLAGS });
try {
  await CASES[name](browser, files);
} catch (error) {
  console.error(error.message.slice(0, 4000));
  process.exitCode = 1;
} finally {
  await browser.close();
}
