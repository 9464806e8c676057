// Tables. A column: {head, kind, value(row), path(row, index), show(row), bar}; what `show`
// leaves undefined is shown as others are. Numbers sort by what they were before
// they were rounded, the largest first; text sorts by its letters.

/** Of a longer table so many rows are shown at first. */
const LONG = 12;

function table(caption, all, rows, options) {
  if (rows.length === 0) return null;
  const columns = all.filter((column) => !column.optional || rows.some((row) => column.value(row) !== null && column.value(row) !== undefined && column.value(row) !== ""));
  const isText = (column) => !column.kind || column.kind === "text";
  const body = el("tbody");
  const heads = columns.map((column, place) => {
    if (column.head === "") return el("th", { scope: "col" });
    const button = el("button", { type: "button", onclick: () => sort(place) }, column.head);
    return el("th", { scope: "col", class: isText(column) || column.bar ? null : "n" }, button);
  });
  const lines = rows.map((row, index) => ({ row, index, line: line(row, index) }));
  body.append(...lines.map((entry) => entry.line));

  function line(row, index) {
    return el("tr", { class: options && options.last === row ? "total" : null }, columns.map((column, place) => {
      const value = column.value(row);
      const path = column.path ? column.path(row, index) : null;
      const own = column.show && column.show(row);
      const shown = own !== undefined ? own : isText(column) ? value : number(column.kind, value, path);
      const shape = column.bar ? { class: "barcell" } : { class: isText(column) ? column.class : column.heat ? "n heat" : "n" };
      if (column.heat) shape.style = { "--h": String(Math.min(0.55, column.heat(row) * 0.6).toFixed(3)) };
      if (place === 0) return el("th", { ...shape, scope: "row" }, shown);
      if (value === 0 && column.kind !== "plain") shape.class = `${shape.class || ""} zero`;
      return el("td", shape, shown);
    }));
  }

  function sort(place) {
    const before = heads[place].getAttribute("aria-sort");
    const first = isText(columns[place]) ? "ascending" : "descending";
    const order = before === null ? first : before === "ascending" ? "descending" : "ascending";
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[place].setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const key = (entry) => columns[place].value(entry.row);
    const isLast = (entry) => options && options.last === entry.row;
    lines.sort((a, b) => {
      if (isLast(a) || isLast(b)) return isLast(a) - isLast(b);
      const [x, y] = [key(a), key(b)];
      // What is unknown comes last, whichever way the others are sorted.
      if (x === null || x === undefined || y === null || y === undefined) return (x === null || x === undefined) - (y === null || y === undefined) || a.index - b.index;
      const difference = typeof x === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
      return sign * difference || a.index - b.index;
    });
    body.append(...lines.map((entry) => entry.line));
  }

  if (options && options.sorted !== undefined) sort(options.sorted);
  const long = rows.length > LONG + 3 && !(options && options.all);
  const made = el("table", { class: long ? "short" : null }, caption && el("caption", null, caption), el("thead", null, el("tr", null, heads)), body);
  const more = long && el("button", { type: "button", class: "button small", onclick: () => {
    made.classList.remove("short");
    more.remove();
  } }, `Show all ${count(rows.length)} rows`);
  return el("div", null, el("div", { class: "wide", tabindex: 0, role: "region", "aria-label": caption || "table" }, made), more);
}

function bar(share, colour) {
  if (!(share > 0)) return null;
  return el("span", { class: "bar", style: { width: `${Math.max(0, Math.min(1, share)) * 100}%`, "--c": colour || "var(--accent)" }, "aria-hidden": "true" });
}
