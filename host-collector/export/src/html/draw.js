"use strict";
// What everything here is drawn with: elements, numbers as the text page writes them, and one tooltip.
// Text enters the document as text nodes only, never as markup: a guest chooses its names.

/** An element with attributes and children; strings become text. */
function el(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "style") {
      for (const [property, set] of Object.entries(value)) made.style.setProperty(property, set);
    } else if (name.startsWith("on")) {
      made.addEventListener(name.slice(2), value);
    } else {
      made.setAttribute(name, value === true ? "" : String(value));
    }
  }
  put(made, children);
  return made;
}

function put(parent, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

function replace(parent, ...children) {
  parent.replaceChildren();
  put(parent, children);
}

// Numbers. A duration has three digits, as on the text page.

/** No line ends between a number and its unit. */
const unbroken = (text) => text.replace(/(\d) (?=(%|[num\u00b5]?s)(?![\w]))/g, "$1\u00a0");

function duration(ns) {
  if (ns === null || ns === undefined) return "\u2013";
  const sign = ns < 0 ? "\u2212" : "";
  let value = Math.abs(ns);
  if (value < 1000) return `${sign}${fixed(value, 0)} ns`;
  for (const unit of ["\u00b5s", "ms", "s"]) {
    value /= 1000;
    if (value < 999.5 || unit === "s") return `${sign}${threeDigits(value)} ${unit}`;
  }
  return "";
}

function threeDigits(value) {
  if (value >= 99.95) return Number(fixed(value, 0)).toLocaleString("en-US");
  return fixed(value, value >= 9.995 ? 1 : 2);
}

/** As the text rounds: what lies exactly between two goes to the even one. Only multiples of a power of two can. */
function fixed(value, digits) {
  const scaled = value * 10 ** digits;
  const isBetween = Number.isInteger(value * 2 ** (digits + 1)) && !Number.isInteger(scaled);
  return isBetween ? (2 * Math.round(scaled / 2) / 10 ** digits).toFixed(digits) : value.toFixed(digits);
}

/** What something may be; nothing where that is one length, as it is shown. */
function range(low, high) {
  return duration(low) === duration(high) ? duration(low) : `${duration(low)} to ${duration(high)}`;
}

function count(value) {
  return value === null || value === undefined ? "\u2013" : value.toLocaleString("en-US");
}

function bytes(value) {
  if (value === null || value === undefined) return "\u2013";
  if (value < 1000) return `${value} B`;
  for (const unit of ["kB", "MB", "GB", "TB"]) {
    value /= 1000;
    if (value < 999.5 || unit === "TB") return `${threeDigits(value)} ${unit}`;
  }
  return "";
}

/** A share of 1 as a percentage, as on the text page: what is there is never shown as nothing, nor as all if it is not. */
function percent(share) {
  if (share === null || share === undefined || !Number.isFinite(share)) return "\u2013";
  const rounded = fixed(share * 100, 1);
  if (share > 0 && rounded === "0.0") return "<0.1 %";
  return share < 1 && rounded === "100.0" ? ">99.9 %" : `${rounded} %`;
}

/** A round number on an axis: without the digits that are nothing there. */
function tick(ns) {
  return duration(ns).replace(/(\.\d*?)0+ /, "$1 ").replace(". ", " ");
}

function seconds(ns) {
  return `${(ns / 1e9).toFixed(3)}\u00a0s`;
}

function exactly(ns) {
  return `${(ns / 1e6).toLocaleString("en-US", { minimumFractionDigits: 3, maximumFractionDigits: 3 })} ms`;
}

/** A number in the document, with what it was before it was rounded. `path` is its place in the summary. */
function number(kind, value, path) {
  const shown = { duration, count, bytes, percent, rate, per_second: frequency, ratio: (v) => (v === null || v === undefined ? "\u2013" : v.toFixed(2)), plain: (v) => (v === null || v === undefined ? "\u2013" : String(v)) }[kind](value);
  return el("data", { value: value === null || value === undefined ? "" : value, "data-kind": kind, "data-path": path }, shown);
}

/** How often a second. */
function frequency(value) {
  return value === null || value === undefined ? "\u2013" : fixed(value, value < 100 ? 1 : 0);
}

/** Time for each second of another. */
function rate(ns) {
  return ns === null || ns === undefined ? "\u2013" : `${duration(ns)}/s`;
}

function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

function words(list) {
  return list.filter((word) => word !== null && word !== undefined && word !== "").join(", ");
}

// Colours. Their values are in the style sheet, for both themes.

function partColour(name) {
  return `var(--${/^[a-z_-]+$/.test(name) ? name : "unknown"})`;
}

function phaseColour(name) {
  return `var(--phase-${/^[a-z_]+$/.test(name) ? name : "unknown"})`;
}

/** How a stretch of this colour is painted: with dark letters on the light amber, hatched where it is unknown. */
function paint(kind, name) {
  const colour = kind === "phase" ? phaseColour(name) : partColour(name);
  return { "--c": colour, "--on": name === "wakeup_delay" ? "var(--on-wakeup_delay)" : "var(--on-colour)" };
}

function hatch(name) {
  return name === "unknown" || name === "not_recorded" ? "hatched" : "";
}

function swatch(kind, name) {
  return el("span", { class: `swatch ${hatch(name)}`, style: paint(kind, name), "aria-hidden": "true" });
}

function legend(entries) {
  return el("ul", { class: "legend" }, entries.map(({ kind, name, label }) => el("li", null, swatch(kind, name), label)));
}

// One tooltip for all, for the mouse and for the keyboard.

const tip = el("div", { class: "tip", role: "status", hidden: true });

function showTip(target, lines) {
  replace(tip, el("b", null, lines[0]), lines.slice(1).filter(Boolean).map((line) => el("div", null, line)));
  tip.hidden = false;
  const box = target.getBoundingClientRect();
  const size = tip.getBoundingClientRect();
  const left = Math.max(8, Math.min(box.left + box.width / 2 - size.width / 2, innerWidth - size.width - 8));
  const above = box.top - size.height - 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 8 ? above : box.bottom + 8}px`;
}

function hideTip() {
  tip.hidden = true;
}

/**
 * Gives each of `items` its numbers on hover and focus. The whole is one stop of the tab key; arrows go on from there.
 * `lines(index)` is what is said of an item, its name first.
 */
function tell(items, lines) {
  items.forEach((item, index) => {
    item.tabIndex = index === 0 ? 0 : -1;
    item.setAttribute("role", "img");
    item.setAttribute("aria-label", lines(index).filter(Boolean).join(", "));
    const show = () => showTip(item, lines(index));
    item.addEventListener("mouseenter", show);
    item.addEventListener("mouseleave", hideTip);
    item.addEventListener("focus", show);
    item.addEventListener("blur", hideTip);
    item.addEventListener("keydown", (event) => {
      const to = { ArrowRight: index + 1, ArrowDown: index + 1, ArrowLeft: index - 1, ArrowUp: index - 1, Home: 0, End: items.length - 1 }[event.key];
      if (event.key === "Escape") hideTip();
      if (to === undefined || !items[to]) return;
      event.preventDefault();
      item.tabIndex = -1;
      items[to].tabIndex = 0;
      items[to].focus();
    });
  });
}

/**
 * A bar that is the sum of its pieces: [{kind, name, label, value, more}]. `total` is its whole length.
 * Pieces of nothing are left out, and a piece says its share where it is wide enough.
 */
function stack(pieces, total, said, thin) {
  const shown = pieces.filter((piece) => piece.value > 0);
  const items = shown.map((piece) => {
    const share = piece.value / total;
    const text = thin || share < 0.07 ? "" : `${Math.round(share * 100)} %`;
    return el("span", { class: hatch(piece.name), style: { ...paint(piece.kind, piece.name), "flex-basis": `${share * 100}%` }, "data-part": piece.name, "data-value": piece.value }, text);
  });
  tell(items, (index) => [
    shown[index].label,
    `${(shown[index].show || duration)(shown[index].value)}, ${percent(shown[index].value / total)} ${said}`,
    ...(shown[index].more || []),
  ]);
  return el("div", { class: thin ? "stack thin" : "stack" }, items);
}

/** A few ways to look at the same, one of which is chosen. */
let choices = 0;
function choice(legendText, options, chosen, onchoose) {
  const name = `choice-${++choices}`;
  return el("fieldset", { class: "choice" }, el("legend", null, legendText), options.map(([value, label]) => {
    const input = el("input", { type: "radio", name, value, onchange: () => onchoose(value) });
    input.checked = value === chosen;
    return el("label", null, input, el("span", null, label));
  }));
}

/** Steps of 1, 2 or 5 that divide `span` into at most `most` pieces. */
function step(span, most) {
  const rough = span / most;
  const ten = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((times) => times * ten).find((size) => size >= rough);
}
