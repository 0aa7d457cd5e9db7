// Every image of the gallery can be opened at full size, with a line to wipe from the clean to the attacked picture.
// Without this script, all pictures are in the tables.
(() => {
  const dialog = document.querySelector("dialog.compare");
  if (!dialog || !dialog.showModal) return;
  const samples = [...document.querySelectorAll(".sample")];
  const [title, stage, line] = ["h2", ".stage", "input"].map((part) => dialog.querySelector(part));
  const pictures = [...stage.querySelectorAll("img")], said = [...dialog.querySelectorAll(".said")];
  const [kinds, attacks] = dialog.querySelectorAll("select");
  let sample = samples[0];
  const rows = () => [...sample.querySelectorAll("tbody tr")].slice(1); // the first row names the classes
  const words = (cell) => [...cell.childNodes].map((node) => node.textContent.trim()).filter(Boolean).join(", ");

  const move = (share) => {
    line.value = share;
    stage.style.setProperty("--line", `${line.value}%`);
  };
  const show = () => {
    const row = rows()[kinds.selectedIndex], column = attacks.selectedIndex + 2;
    const clean = row.cells[1].querySelector("img") || rows()[0].cells[1].querySelector("img");
    const found = [clean, row.cells[column].querySelector("img")];
    found.forEach((picture, i) => {
      pictures[i].src = picture ? picture.src : "data:,";
      pictures[i].alt = picture ? picture.alt : "There is no such picture";
      pictures[i].classList.toggle("pixel", clean.classList.contains("pixel"));
    });
    stage.style.setProperty("--ratio", clean.width / clean.height || 1);
    const heads = sample.querySelectorAll("thead th"), classes = sample.querySelectorAll("tbody tr:first-child td");
    [1, column].forEach((at, i) => {
      const note = at === 1 ? "" : row.cells[at].querySelector(".ci")?.textContent || "";
      said[i].textContent = [`${words(heads[at - 1])}: ${words(classes[at - 1])}`, note].filter(Boolean).join(", ");
    });
    title.textContent = sample.querySelector("h3").firstChild.textContent.trim();
  };
  const fill = (select, names) => {
    const before = Math.max(0, select.selectedIndex);
    select.replaceChildren(...names.map((name) => new Option(name)));
    select.selectedIndex = Math.min(before, names.length - 1);
  };
  const turn = (chosen) => {
    sample = chosen;
    fill(kinds, rows().map((row) => row.cells[0].firstChild.textContent.trim()));
    fill(attacks, [...sample.querySelectorAll("thead th")].slice(1).map((head) => words(head)));
    show();
  };
  const step = (by) => turn(samples[(samples.indexOf(sample) + by + samples.length) % samples.length]);
  const open = (chosen, row, column) => {
    turn(chosen);
    kinds.selectedIndex = row;
    attacks.selectedIndex = Math.max(0, column - 2);
    show();
    move(50);
    dialog.showModal();
    line.focus();
  };

  samples.forEach((chosen) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "open";
    button.textContent = "Compare at full size";
    button.setAttribute("aria-haspopup", "dialog");
    button.addEventListener("click", () => open(chosen, 0, 2));
    chosen.querySelector("h3").after(button);
    chosen.addEventListener("click", (event) => {
      const cell = event.target.closest("img")?.closest("td");
      if (cell) open(chosen, cell.parentNode.sectionRowIndex - 1, cell.cellIndex);
    });
  });
  [kinds, attacks].forEach((select) => select.addEventListener("change", show));
  dialog.querySelectorAll("[data-step]").forEach((button) => button.addEventListener("click", () => step(Number(button.dataset.step))));
  line.addEventListener("input", () => move(line.value));
  const drag = (event) => {
    const box = stage.getBoundingClientRect();
    if (event.buttons) move((100 * (event.clientX - box.left)) / box.width);
  };
  ["pointerdown", "pointermove"].forEach((name) => stage.addEventListener(name, drag));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("keydown", (event) => {
    if (event.target.tagName === "SELECT") return;
    const kind = { ArrowUp: -1, ArrowDown: 1 }[event.key], image = { PageUp: -1, PageDown: 1 }[event.key];
    const share = { ArrowLeft: -2, ArrowRight: 2 }[event.key];
    if (!kind && !image && !share) return;
    event.preventDefault();
    if (image) step(image);
    if (share) move(Number(line.value) + share);
    if (!kind) return;
    kinds.selectedIndex = (kinds.selectedIndex + kind + kinds.length) % kinds.length;
    show();
  });
})();
