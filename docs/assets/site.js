// Name the search, and keep out of the list of landmarks what is none: the theme leaves both to us.
(() => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  const plain = () => {
    const bars = ".md-code__nav:not([role]), .md-nav--secondary .md-nav:not([role])";
    for (const bar of document.querySelectorAll(bars)) {
      bar.setAttribute("role", "none");
      bar.removeAttribute("aria-label");
    }
  };
  new MutationObserver(plain).observe(document.body, { childList: true, subtree: true });
  plain();
})();
