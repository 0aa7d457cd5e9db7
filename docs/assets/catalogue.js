// Filter the cards of the catalogue by words, kind and facts; the address keeps the filter.
(() => {
  const query = document.getElementById("uf-query");
  if (!query) return;
  const cards = [...document.querySelectorAll(".uf-card")];
  const buttons = [...document.querySelectorAll(".uf-buttons button")];
  const pressed = (name) =>
    buttons.filter((b) => b.dataset[name] && b.getAttribute("aria-pressed") === "true").map((b) => b.dataset[name]);
  const count = document.getElementById("uf-count");

  const apply = () => {
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    const kinds = pressed("kind"), facts = pressed("fact");
    let shown = 0;
    for (const card of cards) {
      const own = card.dataset.facts.split("|");
      const fits = (!kinds.length || kinds.includes(card.dataset.kind)) && facts.every((fact) => own.includes(fact)) &&
        words.every((word) => card.dataset.words.includes(word));
      card.hidden = !fits;
      shown += fits;
    }
    for (const group of document.querySelectorAll(".uf-cards")) {
      const empty = ![...group.children].some((card) => !card.hidden);
      group.hidden = empty;
      group.previousElementSibling.classList.toggle("uf-hidden", empty);
    }
    count.textContent = `${shown} of ${cards.length} methods`;
    const kept = new URLSearchParams();
    if (query.value) kept.set("q", query.value);
    kinds.forEach((kind) => kept.append("kind", kind));
    facts.forEach((fact) => kept.append("fact", fact));
    const text = kept.toString();
    try { history.replaceState(null, "", (text ? `?${text}` : location.pathname) + location.hash); } catch { /* a file */ }
  };

  const given = new URLSearchParams(location.search);
  query.value = given.get("q") ?? "";
  for (const button of buttons) {
    const on = given.getAll("kind").includes(button.dataset.kind) || given.getAll("fact").includes(button.dataset.fact);
    button.setAttribute("aria-pressed", String(on));
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
      apply();
    });
  }
  query.addEventListener("input", apply);
  apply();
})();
