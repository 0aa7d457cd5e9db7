"""A whole study in headless Chromium: by keyboard, by touch, interrupted, wide and narrow, light and dark."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from underfire.study import checks, noticing, results
from underfire.study import page as results_page
from underfire.study.store import Annotator, Answer

pytestmark = pytest.mark.browser
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
BOXES = "all => all.map((e) => { const b = e.getBoundingClientRect(); return [b.width, b.height]; })"
BOX = "e => { const b = e.getBoundingClientRect(); return [b.width, b.height]; }"

# All long waits are shorter: the cross before an image, and the time until a request is repeated. The right answer
# after practice (1600 ms) stays until `held` is emptied, if the window has such a list.
FASTER = """
const later = window.setTimeout;
window.setTimeout = (act, time, ...more) =>
  window.held && time === 1600 ? held.push(act) : later(act, time >= 500 ? time / 10 : time, ...more);
"""


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
def window(browser: Any) -> Iterator[Any]:
    """A page that is used by all tests; fails on a console message, an error, or a request to another host."""
    pytest.importorskip("axe_playwright_python", reason="needs axe: pip install '.[dev]'")
    axe = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    heard: list[str] = []
    page = browser.new_context(viewport={"width": 1280, "height": 760}, has_touch=True).new_page()
    page.set_default_timeout(120_000)
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on(
        "request",
        lambda one: None if one.url.startswith(("http://127.0.0.1:", "data:", "file:")) else heard.append(one.url),
    )
    page.add_init_script(FASTER)
    page.add_init_script(axe)
    yield page
    refusal = "status of 409"  # of the name that is taken
    assert [text for text in heard if refusal not in text] == []


@pytest.fixture
def page(window: Any) -> Any:
    """The page, as a new visitor has it."""
    window.context.clear_cookies()
    window.set_viewport_size({"width": 1280, "height": 760})
    window.unroute_all()
    return window


AXE = """async (rules) => (await axe.run(document, { resultTypes: ["violations"], ...rules })).violations
  .map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" ")}`)"""


def check_accessible(page: Any) -> None:
    """Checks a screen with axe-core, and its contrasts also in the dark scheme."""
    for scheme, rules in (("dark", {"runOnly": ["color-contrast"]}), ("light", {})):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(AXE, rules) == []


def join(page: Any, url: str, name: str) -> None:
    page.goto(url)
    page.evaluate("localStorage.clear()")
    page.get_by_label("I agree to take part").check()
    page.get_by_label("A name or pseudonym").fill(name)
    page.keyboard.press("Enter")
    page.locator("#pause").wait_for()


def go_on(page: Any) -> None:
    page.locator("#pause-title").wait_for()
    page.keyboard.press("Space")


def wait_for_images(page: Any, number: str, look: int = 50) -> int:
    """Waits until the trial with this count is shown, and says how many pictures it has."""
    page.wait_for_function("text => document.getElementById('count').textContent === text", arg=number)
    page.locator("#stage img").first.wait_for()
    page.locator("#trial[aria-busy=false]").wait_for()  # it takes answers
    page.wait_for_timeout(look)  # a person sees before she answers
    return int(page.locator("#stage img").count())


def test_a_whole_study_by_keyboard(made: Callable[..., Any], serve: Callable[..., Any], page: Any) -> None:
    server = serve(made(n=4, practice=2))
    join(page, server.url, "Ada")
    plan, model = server.study.plan(0), {c.index: c.key for c in server.study.choices}
    assert page.locator("#pause-title").evaluate("e => e === document.activeElement")
    for number, trial in enumerate(plan):
        if trial.before:
            words = {"practice": "First part" if number == 0 else "Second part", "block": "Practice is over"}
            page.locator("#pause-title", has_text=words[trial.before]).wait_for()
            go_on(page)
        counted = sum(not t.practice for t in plan[: number + 1])
        shown = "Practice" if trial.practice else f"Image {counted} of 4"
        pictures = wait_for_images(page, shown, look=200)  # an answer that is faster than 0.15 s is left out
        assert pictures == 1 + trial.explained == 1 + page.get_by_text("not important").is_visible()
        page.keyboard.press("x")  # no class has this key
        page.keyboard.press(model[server.study.items[trial.item].prediction])
        if trial.practice:
            page.get_by_text("Yes, the program says:").wait_for()
    page.get_by_role("heading", name="Thank you").wait_for()
    assert page.locator("#code").inner_text() == server.store.annotators()[0].code != ""
    answers = server.store.answers()
    assert [a.item for a in answers] == [t.item for t in plan]
    assert all(a.answer == server.study.items[a.item].prediction and not a.hidden for a in answers)
    assert all(a.server_seconds is not None and a.seconds < a.server_seconds for a in answers)
    assert [checks.why_excluded(a) for a in answers] == [""] * 6


def test_a_study_of_noticing_shows_the_map_and_the_class(
    made_noticing: Callable[..., Any], serve: Callable[..., Any], page: Any
) -> None:
    server = serve(made_noticing({"clean": 1.0, "pgd": 0.3, "adv2": 0.8}, n=3, practice=1))
    study = server.study
    join(page, server.url, "Ada")
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


def test_it_goes_on_where_it_stopped_and_an_answer_waits_for_the_server(
    made: Callable[..., Any], serve: Callable[..., Any], page: Any
) -> None:
    server = serve(made(n=4, practice=0))
    away = {"server"}

    def stumble(route: Any) -> None:
        if away:
            route.fulfill(status=200, body="not what the page waits for")
        else:
            route.continue_()

    page.route("**/answer", stumble)
    join(page, server.url, "Ada")
    go_on(page)
    wait_for_images(page, "Image 1 of 4")
    page.keyboard.press("1")
    page.get_by_text("The server does not answer").wait_for()
    assert server.store.answers() == []
    away.clear()
    wait_for_images(page, "Image 2 of 4")
    assert [a.answer for a in server.store.answers()] == [server.study.choices[0].index]
    assert page.locator("#trouble").inner_text() == ""
    page.goto(server.url)
    page.get_by_role("link", name="Go on as Ada").click()
    page.locator("#pause-title", has_text="Welcome back").wait_for()
    go_on(page)
    wait_for_images(page, "Image 2 of 4")
    page.keyboard.press("2")
    page.locator("#pause-title", has_text="Second part").wait_for()
    assert [a.trial for a in server.store.answers()] == [0, 1]


def test_every_page_is_accessible_and_fits_every_window(
    made: Callable[..., Any], serve: Callable[..., Any], page: Any
) -> None:
    server = serve(made(n=4, practice=2))
    server.store.join("Grace")
    sizes: dict[int, set[tuple[float, float]]] = {}

    def check(*, whole: bool = False, accessible: bool = True) -> None:
        if accessible:
            check_accessible(page)
        for width, height in ((360, 640), (390, 664), (664, 390), (1280, 760)):
            page.set_viewport_size({"width": width, "height": height})
            assert page.evaluate("document.documentElement.scrollWidth") == width
            if whole:
                assert page.evaluate("document.documentElement.scrollHeight") == height
                sizes.setdefault(width, set()).add(tuple(page.locator("#stage img").first.evaluate(BOX)))
                assert min(min(box) for box in page.locator(".choice").evaluate_all(BOXES)) >= 44  # for a finger

    page.goto(server.url)
    check()
    # what is missing or refused is said, and its field has the cursor
    focused = "document.activeElement.id"
    page.get_by_role("button", name="Begin").tap()
    assert "Tick the box" in page.get_by_role("alert").inner_text() and page.evaluate(focused) == "consent"
    page.get_by_label("I agree to take part").check()
    page.get_by_label("A name or pseudonym").fill("Grace")
    page.get_by_role("button", name="Begin").tap()
    page.get_by_role("alert").get_by_text("Somebody already takes part as 'Grace'").wait_for()
    assert page.evaluate(focused) == "name"
    check()
    # the trials
    join(page, server.url, "Ada")
    page.evaluate("window.held = []")
    plan = server.study.plan(1)
    for number, trial in enumerate(plan):
        if trial.before:
            page.locator("#pause").wait_for()
            if number == 0:
                check()
            page.get_by_role("button", name="Go on").tap()
        counted = sum(not t.practice for t in plan[: number + 1])
        wait_for_images(page, "Practice" if trial.practice else f"Image {counted} of 4")
        if trial.before == "block":
            check(whole=True, accessible=trial.explained)
        page.locator(".choice").nth(number % 4).tap()
        if trial.practice:
            page.get_by_text("the program says:").wait_for()
            if number == 0:
                check(whole=True)
            page.evaluate("held.splice(0).forEach(act => act())")
    page.get_by_role("heading", name="Thank you").wait_for()
    assert [len(found) for found in sizes.values()] == [1] * 4  # as large with the explanation as without
    # the end, and a withdrawal
    page.locator("#end").get_by_text("Withdraw from the study").tap()
    check()
    assert len(server.store.answers()) == 6
    page.get_by_role("button", name="Delete my answers and withdraw").tap()
    page.get_by_text("Your name and all your 6 answers have been deleted.").wait_for()
    check()
    assert server.store.answers() == [] and page.evaluate("localStorage.length") == 0


def test_the_results_are_accessible_and_fit(
    made: Callable[..., Any], made_noticing: Callable[..., Any], page: Any, tmp_path: Path
) -> None:
    study = made(folder="predicting")
    people = [Annotator(i, f"a-name-without-any-place-to-break-it-{i}", "") for i in range(8)]
    answers = [
        Answer(i, k, t.item, t.explained, t.practice, study.items[t.item].prediction, 1 + 0.1 * (k % 3), None, False)
        for i in range(8)
        for k, t in enumerate(study.plan(i))
    ]
    found: dict[str, results.StudyResults | noticing.NoticingResults] = {
        "enough": results.evaluate(study, people, answers),
        "few": results.evaluate(study, people[:1], answers[:36]),
        "noticing": noticing.evaluate(made_noticing({"clean": 1.0, "pgd": 0.3, "adv2": 0.8}), people[:1], []),
    }
    for name, one in found.items():
        (tmp_path / f"{name}.html").write_text(results_page.render(one), encoding="utf-8")
        page.goto((tmp_path / f"{name}.html").as_uri())
        assert page.locator("svg .person").count() == (8 if name == "enough" else 0)
        check_accessible(page)
        for width in (360, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
