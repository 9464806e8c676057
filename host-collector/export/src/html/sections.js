// Sections of a page, the list of them, and text that is there once somebody wants it.

function section(id, title, about, ...children) {
  const filled = children.flat(Infinity).filter(Boolean);
  if (filled.length === 0) return null;
  return el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title` }, title), about && el("p", { class: "about" }, about), filled);
}

function contents(main) {
  const links = [...main.querySelectorAll("section")].map((part) => el("li", null, el("a", { href: `#${part.id}` }, part.querySelector("h2").textContent)));
  return el("nav", { "aria-label": "Sections" }, el("ul", null, links));
}

function lazyText(name, text) {
  const fold = el("details", null, el("summary", null, name));
  fold.addEventListener("toggle", () => {
    if (fold.open && !fold.querySelector("pre")) fold.append(el("pre", { tabindex: 0 }, text()));
  });
  return fold;
}
