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


@pytest.fixture(scope="module")
def written(synthetic: Synthetic, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The file of the report of a synthetic run; equal options give the same file, written once."""
    files: dict[str, Path] = {}

    def of(**options: Any) -> Path:
        key = repr(sorted(options.items()))
        if key not in files:
            files[key] = report.html(synthetic(**options), tmp_path_factory.mktemp("page") / "report.html")
        return files[key]

    return of


@pytest.fixture
def visit(browser: Any, written: Callable[..., Path]) -> Iterator[Callable[..., Any]]:
    """Opens the report of a synthetic run in a window of some width; fails on a console message or a request."""
    heard: list[str] = []
    contexts: list[Any] = []

    def go(width: int = 1440, *, dark: bool = False, scripts: bool = True, **options: Any) -> Any:
        scheme = "dark" if dark else "light"
        view = {"width": width, "height": 900}
        contexts.append(browser.new_context(viewport=view, color_scheme=scheme, java_script_enabled=scripts))
        page = contexts[-1].new_page()
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda request: heard.append(request.url) if request.url.startswith("http") else None)
        page.goto(written(**options).as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert heard == []


@pytest.mark.parametrize("width", [360, 390, 768, 1440])
def test_nothing_sticks_out(visit: Callable[..., Any], width: int) -> None:
    page = visit(width, labels=["a-class-name-without-any-place-to-break-it-anywhere"] * 10)
    page.eval_on_selector(".top .soft", "(e) => { e.textContent = 'weights/'.repeat(30) + 'w'.repeat(90) }")
    assert page.evaluate(OVERFLOW) == 0
    # Every wide table scrolls inside its own container, and none of the other boxes is wider than the window.
    out = """all => all.filter((e) => !e.closest('.scroll, .pages') && e.getBoundingClientRect().right > innerWidth)
        .map((e) => e.outerHTML)"""
    assert page.eval_on_selector_all("main *:not(.skip)", out) == []


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_has_contrast(visit: Callable[..., Any], dark: bool) -> None:
    page = visit(dark=dark, gates=[{"measure": "clean_accuracy", "at_least": 0.99}])
    assert page.evaluate(FAINT) == []


def test_first_screen_has_the_verdict(visit: Callable[..., Any]) -> None:
    page = visit()
    for question in (
        "Prediction–interpretation gap",
        "How often is the model right under attack?",
        "Do the maps reveal the attack?",
        "Can these numbers be believed?",
    ):
        box = page.locator("#verdict").get_by_role("heading", name=question, exact=True).bounding_box()
        assert box and box["y"] + box["height"] < 900


def test_pictures_are_there_and_crisp(visit: Callable[..., Any]) -> None:
    page = visit()
    assert page.eval_on_selector_all(".sample img", "images => images.every(i => i.complete && i.naturalWidth === 64)")
    assert page.eval_on_selector_all(
        ".sample img", "images => images.every(i => getComputedStyle(i).imageRendering === 'pixelated')"
    )


def test_a_row_shows_its_curve_alone_by_keyboard(visit: Callable[..., Any]) -> None:
    page = visit()
    button = page.get_by_role("button", name="fgsm linf", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    assert page.locator(".chart.picked .series.on").count() == 3  # its band, its line and its name
    page.keyboard.press("Enter")
    assert page.locator(".chart.picked").count() == 0


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_on_the_page_nor_in_the_comparison(visit: Callable[..., Any], dark: bool) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = visit(390 if dark else 1440, dark=dark)
    for opened in (False, True):
        if opened:
            page.get_by_role("button", name="Compare at full size").first.click()
        found = axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
        assert [(problem["id"], [node["html"] for node in problem["nodes"]]) for problem in found] == []


def test_a_picture_is_compared_at_full_size_by_keyboard(visit: Callable[..., Any]) -> None:
    page = visit()
    button = page.get_by_role("button", name="Compare at full size").first
    button.focus()
    page.keyboard.press("Enter")
    dialog, line = page.get_by_role("dialog"), page.get_by_role("slider")
    assert dialog.is_visible() and line.input_value() == "50"
    for key in ("ArrowRight", "ArrowDown", "ArrowDown"):  # wipe, and go to the first map
        page.keyboard.press(key)
    assert line.input_value() == "52"
    cells = page.locator(".sample").first.locator("tr").nth(4).locator("img")
    shown = dialog.locator(".stage img")
    assert [shown.nth(i).get_attribute("src") for i in (0, 1)] == [cells.nth(i).get_attribute("src") for i in (0, 1)]
    assert "IoU 0." in dialog.inner_text()
    page.keyboard.press("PageDown")
    assert page.locator(".sample h3").nth(1).inner_text() == dialog.get_by_role("heading").inner_text()
    for _ in range(9):  # the focus stays in the dialog
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    page.keyboard.press("Escape")
    assert not dialog.is_visible() and button.evaluate("b => b === document.activeElement")


def test_a_selected_table_is_copied_as_rows_and_columns(visit: Callable[..., Any]) -> None:
    copied = visit().evaluate("""() => {
      const data = new DataTransfer(), table = document.querySelector("#checks table");
      getSelection().selectAllChildren(table);
      document.dispatchEvent(new ClipboardEvent("copy", { clipboardData: data, cancelable: true }));
      return [data.getData("text/plain"), data.getData("text/html")];
    }""")
    lines = [line.split("\t") for line in copied[0].split("\n")]
    assert lines[0][0] == "Result" and {len(line) for line in lines} == {len(lines[0])} and len(lines) == 8
    assert copied[1].count("<tr>") == 8 and copied[1].startswith("<table><tr><th>Result</th>")


@pytest.mark.parametrize("width", [390, 1440])
def test_plots_are_readable(visit: Callable[..., Any], width: int) -> None:
    heights = """texts => texts.map((t) => parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().d)"""
    sizes = visit(width).eval_on_selector_all(".chart g:not([transform]) > text", heights)
    assert len(sizes) > 10 and min(sizes) >= 11


def test_the_page_is_whole_without_scripts(visit: Callable[..., Any]) -> None:
    page = visit(scripts=False)
    assert page.locator(".chart").count() == 2
    assert page.locator("table").count() >= 8
    assert page.locator("#overview tbody tr").count() == page.locator("#overview tbody tr:visible").count() == 13


def test_tables_have_sizes_search_and_order(visit: Callable[..., Any]) -> None:
    page = visit()
    rows = page.locator("#overview tbody tr:visible")
    assert rows.count() == 5  # every attack at its largest eps
    page.locator("#overview").get_by_role("combobox").select_option("L∞ eps 4/255")
    assert rows.count() == 3
    page.locator("#overview").get_by_label("Search").fill("PGD")
    assert rows.all_inner_texts()[0].startswith("pgd linf") and rows.count() == 1
    page.locator("#overview").get_by_label("Search").fill("")
    page.locator("#overview").get_by_role("button", name="Accuracy left").click()
    assert [text.split("\t")[0] for text in rows.all_inner_texts()] == ["fgsm linf", "mi_fgsm linf", "pgd linf"]


def test_a_link_into_closed_details_opens_them(visit: Callable[..., Any]) -> None:
    page = visit()
    table = page.locator("#environment table")
    assert not table.is_visible()
    page.goto(f"{page.url}#environment")
    page.locator("#environment summary").click()
    assert table.is_visible()
    nav = page.locator(".pages").bounding_box()
    assert nav and nav["y"] <= 0.5  # the navigation stays in view


def test_on_paper_tables_are_not_cut(visit: Callable[..., Any]) -> None:
    page = visit(695)  # the printable width of A4, 184 mm, in CSS pixels
    page.emulate_media(media="print")
    cut = "tables => tables.filter(t => t.getBoundingClientRect().right > innerWidth).map(t => t.caption?.textContent)"
    assert page.eval_on_selector_all("table", cut) == []
    assert not page.locator(".pages").is_visible()
