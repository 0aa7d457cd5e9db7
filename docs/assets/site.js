// Name the search, keep out of the list of landmarks what is none, and let the keyboard reach tables that scroll.
(() => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  const mend = () => {
    for (const bar of document.querySelectorAll(".md-code__nav:not([role]), .md-nav--secondary .md-nav:not([role])")) {
      bar.setAttribute("role", "none");
      bar.removeAttribute("aria-label");
    }
    for (const box of document.querySelectorAll(".md-typeset__scrollwrap")) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };
  new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
  addEventListener("resize", mend);
  mend();
})();
