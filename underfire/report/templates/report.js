// The page is complete without this script, which only highlights the curve of a row of the table in the plot.
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
    const button = document.createElement("button");
    button.type = "button";
    button.className = name.className;
    button.setAttribute("aria-pressed", "false");
    button.append(...name.childNodes);
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
