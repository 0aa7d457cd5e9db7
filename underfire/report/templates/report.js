// The page is complete without this script, which adds tools: curves, sorting, search, sizes, copying, open details.
(() => {
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // A row of a table highlights its curve in the plot.
  document.querySelectorAll("[data-plot]").forEach((panel) => {
    const charts = [...panel.querySelectorAll(".chart")];
    const curves = charts.flatMap((chart) => [...chart.querySelectorAll("[data-series]")]);
    let held = null;
    const show = (curve) => {
      charts.forEach((chart) => chart.classList.toggle("picked", curve !== null));
      curves.forEach((part) => part.classList.toggle("on", part.dataset.series === curve));
    };
    panel.querySelectorAll("[data-curve]").forEach((name) => {
      const curve = name.dataset.curve;
      const button = make("button", { type: "button", className: name.className }, ...name.childNodes);
      button.setAttribute("aria-pressed", "false");
      name.replaceWith(button);
      button.addEventListener("pointerenter", () => show(curve));
      button.addEventListener("pointerleave", () => show(held));
      button.addEventListener("click", () => {
        held = held === curve ? null : curve;
        panel.querySelectorAll("[aria-pressed]").forEach((other) => other.setAttribute("aria-pressed", String(other === button && held !== null)));
        show(held);
      });
    });
  });

  // The value by which a cell is sorted: its first number, a fraction as a number, or its text; null if it has none.
  const valueOf = (cell) => {
    if (cell.dataset.value) return Number(cell.dataset.value);
    const text = cell.textContent.trim();
    if (["", "–", "unknown", "none"].includes(text)) return null;
    const number = /^([+−-]?[\d.]+)(?:\/([\d.]+))?(?![\w])/.exec(text.replace(/,/g, ""));
    return number ? Number(number[1].replace("−", "-")) / Number(number[2] ?? 1) : text.toLowerCase();
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));

  // Tables sort by a click on the name of a column; long ones have a search, and the overview a choice of sizes.
  document.querySelectorAll("main table").forEach((table) => {
    const body = table.tBodies[0];
    const rows = body ? [...body.rows] : [];
    if (rows.length < 3 || table.closest("#gallery")) return;
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const name = make("span", { tabIndex: 0, title: "Sort by this column" }, ...head.childNodes);
      name.setAttribute("role", "button");
      head.append(name);
      const sort = () => {
        const down = head.getAttribute("aria-sort") === "descending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "ascending" : "descending");
        const keyed = rows.map((row) => [row, valueOf(row.cells[column])]);
        keyed.sort(([first, a], [second, b]) => {
          const last = (row, value) => 2 * row.classList.contains("total") + (value === null); // stay at the end
          return last(first, a) - last(second, b) || (a === null ? 0 : (down ? 1 : -1) * compare(a, b));
        });
        body.append(...keyed.map(([row]) => row));
      };
      name.addEventListener("click", sort);
      name.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        sort();
      });
    });
    if (table.closest("[data-plot]") || (rows.length < 8 && !("sizes" in table.dataset))) return;
    const search = make("input", { type: "search", size: 16 });
    const sizes = make("select", {}, new Option("the largest of each attack", "largest"), new Option("all", "all"));
    const count = make("span", { className: "soft" });
    count.setAttribute("role", "status");
    const places = [...new Set(rows.map((row) => row.dataset.size).filter(Boolean))];
    places.forEach((place) => sizes.append(new Option(place, place)));
    const filter = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      rows.forEach((row) => {
        const text = row.textContent.toLowerCase();
        const sized = { all: true, largest: "largest" in row.dataset }[sizes.value] ?? row.dataset.size === sizes.value;
        row.hidden = !(words.every((word) => text.includes(word)) && (sized || !places.length));
      });
      count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
    };
    search.addEventListener("input", filter);
    sizes.addEventListener("change", filter);
    const tools = make("p", { className: "tools" }, make("label", {}, "Search", search));
    if (places.length) tools.prepend(make("label", {}, "Eps", sizes));
    tools.append(count);
    table.closest(".scroll").before(tools);
    filter();
  });

  // A text gets a button that copies it.
  document.querySelectorAll("[data-copy]").forEach((place) => {
    const button = make("button", { type: "button" }, place.textContent);
    place.replaceWith(button);
    button.addEventListener("click", async () => {
      const text = document.getElementById(place.dataset.copy);
      try {
        await navigator.clipboard.writeText(text.textContent);
      } catch {
        getSelection().selectAllChildren(text); // a browser that forbids the clipboard: the text is selected instead
        document.execCommand("copy");
      }
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = place.textContent), 2000);
    });
  });

  // The navigation marks the section in view; a link into closed details opens them, and so does printing.
  const links = new Map([...document.querySelectorAll(".pages a")].map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver(
    (entries) => entries.forEach((entry) => {
      if (!entry.isIntersecting) return;
      links.forEach((link) => link.removeAttribute("aria-current"));
      const link = links.get(entry.target.id);
      if (!link) return;
      link.setAttribute("aria-current", "true");
      link.parentElement.scrollLeft = link.offsetLeft - link.parentElement.offsetLeft - 40; // on a narrow screen
    }),
    { rootMargin: "-15% 0px -80% 0px" },
  );
  document.querySelectorAll("main > section[id]").forEach((section) => seen.observe(section));
  const reveal = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let part = target.closest("details"); part; part = part.parentElement.closest("details")) part.open = true;
    target.querySelectorAll(":scope > details").forEach((part) => (part.open = true));
  };
  addEventListener("hashchange", reveal);
  reveal();
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((part) => (part.open = true));
  });
  addEventListener("afterprint", () => closed.forEach((part) => (part.open = false)));
})();
