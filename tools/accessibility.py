"""Look for barriers on the built site with axe-core, in Chromium: `make docs`, then `python -m tools.accessibility`.

Each kind of page is opened in the light and in the dark scheme, at the width of a desk and of a phone. The command
prints the rules that a page breaks and the first elements that break them, and fails if there are any. It also fails
if a page is wider than its window.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

#: One page of each kind.
PAGES = (
    "",
    "tutorial/",
    "catalogue/",
    "methods/attack/adv2/",
    "methods/interpreter/grad_cam/",
    "api/model/",
    "benchmarks/",
    "reproductions/adv2-cifar10/",
    "reproductions/physical-examples/",
    "gallery/",
    "spec/",
    "faq/",
    "changelog/",
)
WIDTHS = (1440, 390)
SHOWN = 3  # elements that are printed for each broken rule
TIMEOUT = 300_000  # milliseconds
_OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def served(site: Path) -> Iterator[int]:
    """Serve a folder on a free port of this machine, which is given."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def broken(page: Any) -> Iterator[str]:
    """Yield a line for each rule that an open page breaks."""
    from axe_playwright_python.sync_playwright import Axe

    for rule in Axe().run(page).response["violations"]:
        yield f"{rule['id']}: {len(rule['nodes'])} elements. {rule['help']}"
        for node in rule["nodes"][:SHOWN]:
            yield f"    {node['html'][:160]}"
    if (wider := page.evaluate(_OVERFLOW)) > 0:
        yield f"the page is {wider} pixels wider than its window"


def check(site: Path, pages: tuple[str, ...] = PAGES, widths: tuple[int, ...] = WIDTHS) -> int:
    """Print what is wrong on the pages of a site, and return the number of pages with something wrong.

    Each page counts once for every scheme and width.
    """
    from playwright.sync_api import sync_playwright

    wrong = 0
    with served(site) as port, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_chromium(), args=["--no-sandbox"], timeout=TIMEOUT)
        for width in widths:
            for scheme in ("light", "dark"):
                context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
                context.set_default_timeout(TIMEOUT)
                page = context.new_page()
                for where in pages:
                    page.goto(f"http://127.0.0.1:{port}/{where}")
                    found = list(broken(page))
                    wrong += bool(found)
                    print(f"{where or 'home'}, {scheme}, {width}: {'; '.join(found[:1]) or 'nothing'}", flush=True)
                    for line in found[1:]:
                        print(line)
                context.close()
        browser.close()
    return wrong


def _chromium() -> str | None:
    """Return the path of Chromium; None is the one that Playwright has installed."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def main() -> None:
    """Check the site, with the options of the command line."""
    parser = argparse.ArgumentParser(description="Look for barriers on the built site.")
    parser.add_argument("site", type=Path, nargs="?", default=Path("site"), help="folder that `make docs` wrote")
    parser.add_argument("--only", nargs="+", default=PAGES, help="pages, such as tutorial/")
    options = parser.parse_args()
    if not (options.site / "index.html").exists():
        sys.exit(f"there is no site in {options.site}: run `make docs`")
    sys.exit(bool(check(options.site, tuple(options.only))))


if __name__ == "__main__":
    main()
