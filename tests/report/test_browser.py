"""The page as a browser sees it: headless Chromium, without and with dark mode, wide and narrow, on paper."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from underfire import report
from underfire.audit.ledger import Ledger

pytestmark = pytest.mark.browser
Synthetic = Callable[..., Ledger]
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# The texts whose contrast with the nearest background that is not transparent is under 4.5 (WCAG 2.2, 1.4.3).
FAINT = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const straight = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = numbers(colour).map((v) => straight(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if ((numbers(colour)[3] ?? 1) > 0) return colour;
    }
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    if (["SCRIPT", "STYLE", "title"].includes(element.tagName)) continue;
    if (![...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())) continue;
    const style = getComputedStyle(element);
    const own = light(element instanceof SVGElement ? style.fill : style.color), under = light(behind(element));
    const contrast = (Math.max(own, under) + 0.05) / (Math.min(own, under) + 0.05);
    if (contrast < 4.5) faint.push([element.textContent.trim().slice(0, 40), contrast]);
  }
  return faint;
}"""

OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; skips where it or Playwright is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install '.[dev]'")
    binary = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not binary:
        pytest.skip("needs Chromium: no chromium on the PATH")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=binary, args=list(QUIET))
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any, synthetic: Synthetic, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens the report of a synthetic run in a window of some width; fails on a console message or a request."""
    heard: list[str] = []
    contexts: list[Any] = []

    def go(width: int = 1440, *, dark: bool = False, scripts: bool = True, **options: Any) -> Any:
        path = report.html(synthetic(**options), tmp_path / "report.html")
        scheme = "dark" if dark else "light"
        view = {"width": width, "height": 900}
        contexts.append(browser.new_context(viewport=view, color_scheme=scheme, java_script_enabled=scripts))
        page = contexts[-1].new_page()
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda request: heard.append(request.url) if request.url.startswith("http") else None)
        page.goto(path.as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert heard == []


@pytest.mark.parametrize("width", [360, 390, 768, 1440])
def test_nothing_sticks_out(visit: Callable[..., Any], width: int) -> None:
    page = visit(width, labels=["a-class-name-without-any-place-to-break-it-anywhere"] * 10)
    assert page.evaluate(OVERFLOW) == 0
    # Every wide table scrolls inside its own container, and none of the other boxes is wider than the window.
    out = """all => all.filter((e) => !e.closest('.scroll') && e.getBoundingClientRect().right > innerWidth)
        .map((e) => e.outerHTML)"""
    assert page.eval_on_selector_all("main *:not(.skip)", out) == []


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_has_contrast(visit: Callable[..., Any], dark: bool) -> None:
    page = visit(dark=dark, missing=0, gates=[{"measure": "clean_accuracy", "at_least": 0.99}])
    assert page.evaluate(FAINT) == []


def test_first_screen_has_the_verdict(visit: Callable[..., Any]) -> None:
    page = visit()
    for question in (
        "Prediction–interpretation gap",
        "How often is the model right under attack?",
        "Do the explanations survive?",
        "Can these numbers be believed?",
    ):
        box = page.locator("#verdict").get_by_role("heading", name=question, exact=True).bounding_box()
        assert box and box["y"] + box["height"] < 900


def test_pictures_are_there_and_crisp(visit: Callable[..., Any]) -> None:
    page = visit()
    assert page.eval_on_selector_all("img", "images => images.every(i => i.complete && i.naturalWidth === 64)")
    assert page.eval_on_selector_all(
        "img", "images => images.every(i => getComputedStyle(i).imageRendering === 'pixelated')"
    )


def test_a_row_shows_its_curve_alone_by_keyboard(visit: Callable[..., Any]) -> None:
    page = visit()
    button = page.get_by_role("button", name="fgsm linf", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    assert page.locator(".chart.picked .series.on").count() == 2  # its band and its line
    page.keyboard.press("Enter")
    assert page.locator(".chart.picked").count() == 0


@pytest.mark.parametrize("width", [390, 1440])
def test_plots_are_readable(visit: Callable[..., Any], width: int) -> None:
    heights = """texts => texts.map((t) => parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().d)"""
    sizes = visit(width).eval_on_selector_all(".chart g:not([transform]) > text", heights)
    assert len(sizes) > 10 and min(sizes) >= 11


def test_the_page_is_whole_without_scripts(visit: Callable[..., Any]) -> None:
    page = visit(scripts=False)
    assert page.locator(".chart").count() == 2
    assert page.get_by_role("table").count() >= 8


def test_on_paper_tables_are_not_cut(visit: Callable[..., Any]) -> None:
    page = visit(695)  # the printable width of A4, 184 mm, in CSS pixels
    page.emulate_media(media="print")
    cut = "tables => tables.filter(t => t.getBoundingClientRect().right > innerWidth).map(t => t.caption?.textContent)"
    assert page.eval_on_selector_all("table", cut) == []
    assert not page.locator(".pages").is_visible()
