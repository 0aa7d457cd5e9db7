"""A whole study in headless Chromium: by keyboard, by touch, interrupted, wide and narrow, light and dark."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from underfire.study import page as results_page
from underfire.study import results, simulate

pytestmark = pytest.mark.browser
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
BOXES = "all => all.map((e) => { const b = e.getBoundingClientRect(); return [b.width, b.height]; })"
BOX = "e => { const b = e.getBoundingClientRect(); return [b.width, b.height]; }"

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
    return "rgb(255, 255, 255)";
  };
  const own = (e) => [...e.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  const seen = [...document.querySelectorAll("body *")].filter((e) => own(e) && e.checkVisibility());
  return seen.map((e) => {
    const style = getComputedStyle(e), under = light(behind(e));
    const text = light(e instanceof SVGElement ? style.fill : style.color);
    return [e.textContent.trim().slice(0, 40), (Math.max(text, under) + 0.05) / (Math.min(text, under) + 0.05)];
  }).filter(([, contrast]) => contrast < 4.5);
}"""


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
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a window; fails on a console message, an error, or a request to another host."""
    heard: list[str] = []
    contexts: list[Any] = []

    def go(url: str, width: int = 1280, height: int = 760, *, dark: bool = False, touch: bool = False) -> Any:
        view = {"width": width, "height": height}
        scheme = "dark" if dark else "light"
        contexts.append(browser.new_context(viewport=view, color_scheme=scheme, has_touch=touch))
        page = contexts[-1].new_page()
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on(
            "request", lambda request: None if request.url.startswith((url, "data:")) else heard.append(request.url)
        )
        page.goto(url)
        return page

    yield go
    for context in contexts:
        context.close()
    assert heard == []


def join(page: Any, name: str) -> None:
    page.get_by_label("A name or pseudonym").fill(name)
    page.keyboard.press("Enter")
    page.locator("#pause").wait_for()


def go_on(page: Any) -> None:
    page.locator("#pause-title").wait_for()
    page.keyboard.press("Space")


# The right answer of a practice trial stays until the test goes on, however long its checks take.
HOLD = """
window.held = [];
const later = window.setTimeout;
window.setTimeout = (go_on, time, ...more) => time === 1600 ? held.push(go_on) : later(go_on, time, ...more);
"""


def wait_for_images(page: Any, number: str) -> int:
    """Waits until the trial with this count is shown, and says how many pictures it has."""
    page.wait_for_function("text => document.getElementById('count').textContent === text", arg=number)
    page.locator("#stage img").first.wait_for()
    page.locator("#trial[aria-busy=false]").wait_for()  # it takes answers
    page.wait_for_timeout(50)  # a person sees before she answers
    return int(page.locator("#stage img").count())


def test_a_whole_study_by_keyboard(
    made: Callable[..., Any], serve: Callable[..., Any], visit: Callable[..., Any]
) -> None:
    server = serve(made(n=4, practice=2))
    page = visit(server.url)
    join(page, "Ada")
    plan, model = server.study.plan(0), {c.index: c.key for c in server.study.choices}
    assert page.locator("#pause-title").evaluate("e => e === document.activeElement")
    for number, trial in enumerate(plan):
        if trial.before:
            words = {"practice": "First part" if number == 0 else "Second part", "block": "Practice is over"}
            page.locator("#pause-title", has_text=words[trial.before]).wait_for()
            go_on(page)
        counted = sum(not t.practice for t in plan[: number + 1])
        pictures = wait_for_images(page, "Practice" if trial.practice else f"Image {counted} of 4")
        assert pictures == 1 + trial.explained
        page.keyboard.press("x")  # no class has this key
        page.keyboard.press(model[server.study.items[trial.item].prediction])
        if trial.practice:
            page.get_by_text("Yes, the program says:").wait_for()
    page.get_by_role("heading", name="Thank you").wait_for()
    answers = server.store.answers()
    assert [a.item for a in answers] == [t.item for t in plan]
    assert all(a.answer == server.study.items[a.item].prediction and not a.hidden for a in answers)
    assert all(0.2 < a.seconds < 10 for a in answers)
    assert all(a.server_seconds is not None and a.seconds < a.server_seconds for a in answers)
    assert [results.why_excluded(a) for a in answers] == [""] * 6


def test_a_study_of_noticing_shows_the_map_and_the_class(
    made_noticing: Callable[..., Any], serve: Callable[..., Any], visit: Callable[..., Any]
) -> None:
    server = serve(made_noticing({"clean": 1.0, "pgd": 0.3, "adv2": 0.8}, n=3, practice=1))
    study, page = server.study, visit(server.url)
    join(page, "Ada")
    for number, trial in enumerate(study.plan(0)):
        if trial.before:
            go_on(page)
        assert wait_for_images(page, "Practice" if trial.practice else f"Image {number} of 3") == 1
        page.get_by_text(f"The program says: {study.items[trial.item].shown_class}", exact=True).wait_for()
        page.keyboard.press("1")
        if trial.practice:
            attacked = study.items[trial.item].condition != "clean"
            told = "Yes, the right answer is: attacked" if attacked else "No, the right answer is: not attacked"
            page.get_by_text(told).wait_for()
    page.get_by_role("heading", name="Thank you").wait_for()
    assert [a.answer for a in server.store.answers()] == [1] * 4


def test_it_goes_on_where_it_stopped(
    made: Callable[..., Any], serve: Callable[..., Any], visit: Callable[..., Any]
) -> None:
    server = serve(made(n=4, practice=0))
    page = visit(server.url)
    join(page, "Ada")
    go_on(page)
    wait_for_images(page, "Image 1 of 4")
    page.keyboard.press("1")
    wait_for_images(page, "Image 2 of 4")
    page.goto(server.url)
    page.get_by_role("link", name="Go on as Ada").click()
    page.locator("#pause-title", has_text="Welcome back").wait_for()
    go_on(page)
    wait_for_images(page, "Image 2 of 4")
    page.keyboard.press("2")
    page.locator("#pause-title", has_text="Second part").wait_for()
    assert [a.trial for a in server.store.answers()] == [0, 1]


def test_an_answer_waits_for_the_server(
    made: Callable[..., Any], serve: Callable[..., Any], visit: Callable[..., Any]
) -> None:
    server = serve(made(n=4, practice=0))
    page = visit(server.url)
    away = set[str]()

    def stumble(route: Any) -> None:
        if away:
            route.fulfill(status=200, body="not what the page waits for")
        else:
            route.continue_()

    page.route("**/answer", stumble)  # long before the answer: a busy browser may begin to obey it late
    join(page, "Ada")
    go_on(page)
    wait_for_images(page, "Image 1 of 4")
    away.add("server")  # until the page has said so
    trouble = page.get_by_text("The server does not answer")
    for _ in range(15):  # a busy browser may lose a key, or obey the route late; a second key changes nothing
        page.keyboard.press("1")
        page.wait_for_timeout(1500)
        if trouble.is_visible():
            break
    stored = len(server.store.answers())
    away.clear()
    wait_for_images(page, f"Image {stored + 2} of 4")
    assert len(server.store.answers()) == stored + 1
    assert {a.answer for a in server.store.answers()} == {server.study.choices[0].index}
    assert page.locator("#trouble").inner_text() == ""


def test_a_name_that_is_taken_is_said(made: Callable[..., Any], serve: Callable[..., Any], browser: Any) -> None:
    server = serve(made(n=4, practice=0))
    server.ask("POST", "/api/join", {"name": "Ada"})
    page = browser.new_page()
    page.goto(server.url)
    page.get_by_label("A name or pseudonym").fill("Ada")
    page.get_by_role("button", name="Begin").click()
    page.get_by_role("alert").get_by_text("the name 'Ada' is taken").wait_for()
    page.close()


def test_every_page_fits_every_window(
    made: Callable[..., Any], serve: Callable[..., Any], visit: Callable[..., Any]
) -> None:
    server = serve(made(n=4, practice=2))
    page = visit(server.url, touch=True)
    sizes: dict[int, set[tuple[float, float]]] = {}

    def check(*, whole: bool) -> None:
        for i, (width, height) in enumerate(((360, 640), (390, 780), (844, 390), (1280, 760))):
            page.set_viewport_size({"width": width, "height": height})
            page.emulate_media(color_scheme="dark" if i % 2 else "light")
            assert page.evaluate(FAINT) == []
            assert page.evaluate("document.documentElement.scrollWidth") == width
            if whole:
                assert page.evaluate("document.documentElement.scrollHeight") == height
                sizes.setdefault(width, set()).add(tuple(page.locator("#stage img").first.evaluate(BOX)))
                assert min(min(box) for box in page.locator(".choice").evaluate_all(BOXES)) >= 44  # for a finger

    check(whole=False)
    page.add_init_script(HOLD)
    join(page, "Ada")
    for number, trial in enumerate(server.study.plan(0)):
        if trial.before:
            page.locator("#pause").wait_for()
            check(whole=False)
            page.get_by_role("button", name="Go on").tap()
        counted = sum(not t.practice for t in server.study.plan(0)[: number + 1])
        wait_for_images(page, "Practice" if trial.practice else f"Image {counted} of 4")
        check(whole=True)
        page.locator(".choice").nth(number % 4).tap()
        if trial.practice:
            page.get_by_text("the program says:").wait_for()
            check(whole=True)
            page.evaluate("held.splice(0).forEach(go_on => go_on())")
    page.get_by_role("heading", name="Thank you").wait_for()
    check(whole=False)
    assert len(server.store.answers()) == 6
    assert [len(found) for found in sizes.values()] == [1] * 4  # as large with the explanation as without


@pytest.mark.parametrize(("width", "dark"), [(360, True), (1280, False)])
def test_the_results_are_readable(
    made: Callable[..., Any], serve: Callable[..., Any], browser: Any, tmp_path: Path, width: int, dark: bool
) -> None:
    server = serve(made())
    for i in range(4):
        simulate.answer_all(
            simulate.SimulatedAnnotator(), server.study, server.store, f"a-name-without-any-place-to-break-it-{i}"
        )
    found = results.evaluate(server.study, server.store.annotators(), server.store.answers())
    (tmp_path / "results.html").write_text(results_page.render(found), encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light")
    page.goto((tmp_path / "results.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(FAINT) == []
    assert page.locator("svg .person").count() == 4
    page.close()
