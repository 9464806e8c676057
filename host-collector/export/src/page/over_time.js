// Latency over time: a dot for each request, of which a stretch of time can be chosen by mouse, keyboard or number.

function overTime(group) {
  const sample = group.sample;
  if (!sample || sample.start_us.length === 0) return null;
  const n = sample.start_us.length;
  const by = sample.cause && (page.causes || []).length > 0
    ? { of: sample.cause, names: page.causes.map((cause) => ({ kind: "cause", name: causeColour(cause.name), label: cause.label })) }
    : { of: sample.dominant, names: parts.map((part) => ({ kind: "part", name: part.name, label: part.label })) };
  const range = { from: Math.min(page.window_from_ns / 1000, sample.start_us[0]), to: Math.max(page.window_ns / 1000, sample.start_us[n - 1]), low: Infinity, high: 0 };
  for (const latency of sample.latency_us) {
    range.low = Math.min(range.low, Math.max(latency, 1));
    range.high = Math.max(range.high, latency);
  }
  const chosen = el("div", { class: "chosen", "aria-live": "polite" });
  const ways = waysOf(group);
  const from = el("input", { type: "number", step: "any", id: "from", "aria-label": "from, in seconds" });
  const to = el("input", { type: "number", step: "any", id: "to", "aria-label": "to, in seconds" });
  const clear = el("button", { type: "button", class: "button", id: "clear" }, "Show all");
  const canvas = el("canvas", { "aria-hidden": "true" });
  const plot = el("div", { class: "plot", tabindex: 0, role: "group", id: "plot",
    "aria-label": "Latency over time. Left and right move the chosen stretch, with shift they make it shorter and longer, escape shows all." }, canvas);
  // A thousandth of what is shown can be told.
  const digits = Math.min(9, Math.max(3, 3 + Math.ceil(-Math.log10((range.to - range.from) / 1e6))));
  const state = { canvas, plot, sample, by, range, digits, stretch: null, way: ways[0][0] };
  const used = by.names.filter((_, place) => by.of.includes(place));

  const choose = (stretch) => {
    state.stretch = stretch && stretch[0] !== stretch[1] ? [Math.max(range.from, Math.min(...stretch)), Math.min(range.to, Math.max(...stretch))] : null;
    from.value = state.stretch ? (state.stretch[0] / 1e6).toFixed(state.digits) : "";
    to.value = state.stretch ? (state.stretch[1] / 1e6).toFixed(state.digits) : "";
    clear.disabled = !state.stretch;
    paintPlot(state);
    showChosen();
  };
  const showChosen = () => replace(chosen, chosenRequests(state), exactShares(group, state, ways));
  listen(state, choose);
  for (const input of [from, to]) {
    input.addEventListener("change", () => choose(from.value === "" && to.value === "" ? null : [from.value === "" ? range.from : Number(from.value) * 1e6, to.value === "" ? range.to : Number(to.value) * 1e6]));
  }
  clear.addEventListener("click", () => choose(null));
  redrawWith(state);
  choose(null);
  const whole = n >= sample.of ? `Each of ${count(sample.of)} requests is a dot` : `${count(n)} of ${count(sample.of)} requests are dots: a fair sample, and ${sample.slowest ? `the ${count(sample.slowest)} slowest all` : "the slowest all"}`;
  return section("time", "Latency over time", `${whole}, in the colour of what took most of it. Drag over a stretch of time to see who was slow in it.`,
    el("div", { class: "controls" }, el("label", null, "from ", from, " s"), el("label", null, "to ", to, " s"), clear),
    el("figure", { style: { margin: 0 } }, plot, legend(used)),
    el("div", { class: "controls by" }, choice("Shares by", ways.map(([key, label]) => [key, label]), ways[0][0], (key) => {
      state.way = key;
      showChosen();
    })), chosen);
}

/** The plot follows its width and the theme, and prints in the colours of paper. */
const drawn = new Set();
function repaint() {
  drawn.forEach((state) => (state.plot.isConnected ? paintPlot(state) : drawn.delete(state)));
}
function redrawWith(state) {
  drawn.add(state);
  new ResizeObserver(() => paintPlot(state)).observe(state.plot);
}
for (const query of ["(prefers-color-scheme: dark)", "print"]) {
  matchMedia(query).addEventListener("change", repaint);
}

function listen(state, choose) {
  const { plot, range } = state;
  let start = null;
  const at = (event) => {
    const box = plot.getBoundingClientRect();
    const share = (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
    return range.from + Math.max(0, Math.min(1, share)) * (range.to - range.from);
  };
  plot.addEventListener("pointerdown", (event) => {
    start = at(event);
    plot.setPointerCapture(event.pointerId);
  });
  plot.addEventListener("pointermove", (event) => {
    if (start !== null && Math.abs(at(event) - start) > (range.to - range.from) / 500) choose([start, at(event)]);
  });
  plot.addEventListener("pointerup", (event) => {
    if (start !== null && Math.abs(at(event) - start) <= (range.to - range.from) / 500) choose(null);
    start = null;
  });
  plot.addEventListener("pointercancel", () => {
    start = null;
  });
  plot.addEventListener("keydown", (event) => {
    const whole = range.to - range.from;
    const by = { ArrowLeft: -whole / 40, ArrowRight: whole / 40 }[event.key];
    if (event.key === "Escape") choose(null);
    if (by === undefined) return;
    event.preventDefault();
    const [first, last] = state.stretch || [range.from, range.from + whole / 10];
    if (!state.stretch) return choose([first, last]);
    if (event.shiftKey) return choose([first, Math.max(first + whole / 40, last + by)]);
    const move = Math.max(range.from - first, Math.min(range.to - last, by));
    choose([first + move, last + move]);
  });
}

const LEFT = 62;
const RIGHT = 14;
const TOP = 14;
const BOTTOM = 30;

function paintPlot(state) {
  const { canvas, plot, sample, by, range, stretch } = state;
  const width = plot.clientWidth;
  const height = plot.clientHeight;
  if (width === 0 || height === 0) return;
  const dense = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * dense);
  canvas.height = Math.round(height * dense);
  const pen = canvas.getContext("2d");
  pen.setTransform(dense, 0, 0, dense, 0, 0);
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const low = Math.log10(range.low) - 0.05;
  const high = Math.log10(Math.max(range.high, range.low * 1.5)) + 0.08;
  const x = (us) => LEFT + ((us - range.from) / (range.to - range.from || 1)) * (width - LEFT - RIGHT);
  const y = (us) => height - BOTTOM - ((Math.log10(Math.max(us, 1)) - low) / (high - low)) * (height - TOP - BOTTOM);
  paintGrid(pen, { width, height, low, high, range, x, y, colour });
  if (stretch) {
    pen.fillStyle = colour("shade");
    pen.fillRect(x(stretch[0]), TOP, x(stretch[1]) - x(stretch[0]), height - TOP - BOTTOM);
    pen.strokeStyle = colour("accent");
    pen.strokeRect(x(stretch[0]) + 0.5, TOP + 0.5, x(stretch[1]) - x(stretch[0]), height - TOP - BOTTOM);
  }
  // The common ones first, so that the rare ones stay in sight.
  const sizes = by.names.map(() => 0);
  by.of.forEach((place) => { sizes[place] += 1; });
  const order = sizes.map((size, place) => place).filter((place) => sizes[place] > 0).sort((a, b) => sizes[b] - sizes[a]);
  const radius = by.of.length > 4000 ? 1.5 : by.of.length > 800 ? 2 : 2.6;
  for (const place of order) {
    const name = by.names[place].name;
    pen.fillStyle = colour(name) || colour("unknown");
    pen.strokeStyle = pen.fillStyle;
    pen.lineWidth = 1;
    for (let at = 0; at < by.of.length; at += 1) {
      if (by.of[at] !== place) continue;
      const start = sample.start_us[at];
      pen.globalAlpha = stretch && (start < stretch[0] || start > stretch[1]) ? 0.18 : 0.8;
      pen.beginPath();
      pen.arc(x(start), y(sample.latency_us[at]), radius, 0, 7);
      // What is unknown is hollow, as it is hatched elsewhere.
      if (name === "unknown") pen.stroke();
      else pen.fill();
    }
  }
  pen.globalAlpha = 1;
}

function paintGrid(pen, { width, height, low, high, range, x, y, colour }) {
  pen.font = `13px ${getComputedStyle(document.body).fontFamily}`;
  pen.fillStyle = colour("muted");
  pen.strokeStyle = colour("line");
  pen.lineWidth = 1;
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (let decade = Math.floor(low); decade <= high; decade += 1) {
    for (const times of high - low < 1.6 ? [1, 2, 5] : [1]) {
      const us = times * 10 ** decade;
      if (Math.log10(us) < low || Math.log10(us) > high) continue;
      const line = Math.round(y(us)) + 0.5;
      pen.beginPath();
      pen.moveTo(LEFT, line);
      pen.lineTo(width - RIGHT, line);
      pen.stroke();
      pen.fillText(tick(us * 1000), LEFT - 8, line);
    }
  }
  pen.textBaseline = "top";
  pen.textAlign = "center";
  // Events that were lost leave their place empty, so it is shaded.
  pen.fillStyle = colour("line");
  for (const lost of page.lost || []) pen.fillRect(x(lost.from_us), TOP, Math.max(1, x(lost.to_us === null ? range.to : lost.to_us) - x(lost.from_us)), height - TOP - BOTTOM);
  pen.fillStyle = colour("muted");
  const span = range.to - range.from;
  const size = step(span, Math.max(2, Math.floor(width / 110)));
  for (let us = Math.ceil(range.from / size) * size; us <= range.to; us += size) {
    if (x(us) < width - RIGHT - 10 || us === range.from) pen.fillText(`${Number((us / 1e6).toPrecision(6))} s`, x(us), height - BOTTOM + 8);
  }
}

/** The dots of the chosen stretch: their number and percentiles. */
function chosenRequests(state) {
  const { sample, by, stretch } = state;
  const picked = [];
  for (let at = 0; at < by.of.length; at += 1) {
    if (!stretch || (sample.start_us[at] >= stretch[0] && sample.start_us[at] <= stretch[1])) picked.push(at);
  }
  const where = stretch ? `between ${(stretch[0] / 1e6).toFixed(state.digits)} and ${(stretch[1] / 1e6).toFixed(state.digits)}\u00a0s` : "in all";
  if (picked.length === 0) return el("p", { id: "chosen", "data-count": 0 }, `No request that is shown began ${where}.`);
  const sorted = picked.map((at) => sample.latency_us[at]).sort((a, b) => a - b);
  const at = (share) => duration(sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] * 1000);
  const whole = by.of.length >= sample.of;
  return el("p", { id: "chosen", "data-count": picked.length }, `${count(picked.length)} ${whole ? "requests" : "of the requests that are shown"} ${where}: ${whole ? `median ${at(0.5)}, 99th percentile ${at(0.99)}, ` : ""}longest ${at(1)}.`);
}

/** Where the time of all requests of the chosen stretch went, dots or not: sums that are exact for whole steps of time. */
function exactShares(group, state, ways) {
  const { over_time: steps } = group;
  const [, , names] = ways.find(([key]) => key === state.way);
  const [from, to] = state.stretch ? state.stretch.map((us) => us * 1000) : [-Infinity, Infinity];
  const within = steps.places.map((place) => place * steps.length_ns < to && (place + 1) * steps.length_ns > from);
  const of = (column) => sum(column.filter((_, at) => within[at]));
  const [requests, attributed] = [of(steps.requests), of(steps.attributed)];
  if (requests === 0) return null;
  const totals = new Map(steps[state.way].map((column) => [column.of, of(column.ns)]));
  const pieces = names.map((name, place) => ({ ...name, value: totals.get(place) || 0, more: [`${duration((totals.get(place) || 0) / attributed)} a request`] }));
  const total = sum(pieces.map((piece) => piece.value));
  const begin = Math.floor(from / steps.length_ns) * steps.length_ns;
  const end = Math.ceil(to / steps.length_ns) * steps.length_ns;
  const isRounded = state.stretch && (begin !== from || end !== to);
  const time = (ns) => (ns / 1e9).toFixed(Math.max(state.digits, 4));
  const where = state.stretch ? `began between ${time(begin)} and ${time(end)}\u00a0s${isRounded ? `, which is what was chosen in whole steps of ${duration(steps.length_ns)}` : ""}` : "in all";
  return [el("p", { id: "shares", "data-requests": requests, "data-total": total, "data-from": state.stretch ? begin : null, "data-to": state.stretch ? end : null },
    `The time of all ${count(requests)} requests ${where}${attributed < requests ? `, but ${count(requests - attributed)} that cannot be attributed` : ""}: ${duration(total)}, exactly.`),
    stack(pieces, total || 1, "of their time"), state.way !== ways[0][0] && legend(pieces.filter((piece) => piece.value > 0))];
}
