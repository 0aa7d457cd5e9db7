// A copied table has one line for each row and a tab between two cells, so that a spreadsheet takes it as it stands.
(() => {
  const plain = (cell) => cell.innerText.replace(/\s+/g, " ").trim();
  const escaped = (text) => text.replace(/[&<>]/g, (sign) => `&#${sign.charCodeAt(0)};`);
  const put = (event, rows) => {
    const cells = rows.map((row) => [...row.cells].map((cell) => [cell.tagName.toLowerCase(), plain(cell)]));
    const html = cells.map((row) => `<tr>${row.map(([tag, text]) => `<${tag}>${escaped(text)}</${tag}>`).join("")}</tr>`);
    event.clipboardData.setData("text/plain", cells.map((row) => row.map(([, text]) => text).join("\t")).join("\n"));
    event.clipboardData.setData("text/html", `<table>${html.join("")}</table>`);
    event.preventDefault();
  };
  document.addEventListener("copy", (event) => {
    const selection = getSelection();
    if (selection.isCollapsed || !selection.rangeCount) return;
    const range = selection.getRangeAt(0);
    const tables = [...document.querySelectorAll("table")].filter((table) => range.intersectsNode(table));
    const inside = range.commonAncestorContainer, parent = inside.nodeType === 1 ? inside : inside.parentElement;
    if (tables.length !== 1 || parent.closest("td, th, caption") || !parent.closest("table, .scroll")) return;
    put(event, [...tables[0].rows].filter((row) => !row.hidden && range.intersectsNode(row)));
  });
  document.querySelectorAll("table caption").forEach((caption) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.setAttribute("aria-label", `Copy this table: ${caption.closest(".scroll")?.getAttribute("aria-label")?.replace("Table: ", "")}`);
    button.addEventListener("click", () => {
      getSelection().selectAllChildren(caption.parentElement);
      button.textContent = document.execCommand("copy") ? "Copied" : "Not copied";
      getSelection().removeAllRanges();
    });
    (caption.firstElementChild ?? caption).append(" ", button);
  });
})();
