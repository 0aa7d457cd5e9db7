"""The page as text: its numbers, what it escapes, its structure, and the runs that have little to show."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from underfire import report
from underfire.audit.ledger import Ledger
from underfire.audit.spec import parse_spec
from underfire.report.facts import spec_yaml
from underfire.report.page import render

pytestmark = pytest.mark.slow  # one of the twenty heaviest files

Synthetic = Callable[..., Ledger]
SPACE = "\u00a0"


class Page(HTMLParser):
    """The tags of a page with their attributes, and its visible text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._inside: list[str] = []
        self.feed(source)
        self.text = re.sub(r"[ \n]+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self._inside):
            self.words.append(data)

    def all(self, *names: str) -> list[dict[str, str | None]]:
        """The attributes of every tag of these names."""
        return [attrs for tag, attrs in self.tags if tag in names]


@pytest.fixture(scope="module")
def page(synthetic: Synthetic) -> Callable[..., Page]:
    """The page of a synthetic run; equal options give the same page, drawn once."""
    drawn: dict[str, Page] = {}

    def of(**options: Any) -> Page:
        key = repr(sorted(options.items()))
        if key not in drawn:
            drawn[key] = Page(render(synthetic(**options)))
        return drawn[key]

    return of


def test_first_screen_says_what_the_numbers_say(page: Callable[..., Page]) -> None:
    text = page().text
    # 95 of 100 are right without attack, and 93 of them fall to PGD at 8/255: 2 are left, 0.24 to 7.04 %.
    assert "The model is easily fooled, and its explanations can be forged" in text
    assert "the model is right on 95.0 % of the images; under the worst attack (L∞ eps 8/255), on 2.0 %." in (
        re.sub(" ([.,])", r"\1", text.replace(SPACE, " "))
    )
    assert f"95{SPACE}% interval 0.2–7.0{SPACE}%, n{SPACE}={SPACE}100" in text
    # ADV2 and PGD both fool 90 images; ADV2 keeps every map that it aims at, PGD none.
    assert f"The map hides the attack in 100.0{SPACE}% of the images" in text
    assert (
        f"95{SPACE}% interval 96.0–100.0{SPACE}%, n{SPACE}={SPACE}90 images that adv2 grad_cam and pgd linf fool"
        in text
    )
    # one attack is aimed at one map: 90 images keep an IoU of 0.9 or 0.95, and PGD alone fools 3 more (0.25 to 0.45)
    kept = [((2 * iou / (1 + iou)) - 0.2) / 0.8 for iou in (*[0.9, 0.95] * 45, 0.25, 0.35, 0.45)]
    assert f"Prediction–interpretation gap {sum(kept) / 93:.2f}" in text
    assert "the map says almost nothing about whether the class is right" in text and "L∞ eps 8/255 only" in text
    assert "6 of 7 masking checks passed" in text
    assert "AML.T0043.000" in text


def test_curves_and_their_table_agree(page: Callable[..., Page]) -> None:
    found = page()
    charts = [svg for svg in found.all("svg") if svg.get("role") == "img"]
    assert len(charts) == 2
    assert f"pgd linf 2.0{SPACE}%" in str(charts[0]["aria-label"])
    # PGD at 4/255: the images 0 to 46 fall, 48 of the 95 right ones are left.
    assert re.search(r"pgd linf 71\.0 [\d.–]+ 48\.0 [\d.–]+ 2\.0 0\.2–7\.0 100", found.text)
    assert re.search(r"without an attack it is 95\.0 \(88\.7–98\.4.%\)", found.text)
    curves = Counter(str(group["data-series"]) for group in found.all("g") if "data-series" in group)
    # band, line and name; the first has a whisker, too, and in L2 a band and a line alone
    assert curves == {"0": 6, "1": 3, "2": 3, "3": 3, "4": 3}


def test_a_robust_run_reads_as_one(page: Callable[..., Page], synthetic: Synthetic, tmp_path: Path) -> None:
    checks = [("more_steps", True, 0.0, 0.02, "More steps fool no fewer.")]
    text = page(attacks=["fgsm linf"], interpreters=[], checks=checks, gallery=0).text
    assert "The model is easily fooled, but nothing was aimed at its explanations" not in text
    assert "Do the maps reveal the attack? Not tested" in text
    assert "1 of 1 masking checks passed" in text
    assert "This run has no example images" in text
    assert "Prediction–interpretation gap Not known Not measured" in text
    assert "The spec of this run has no interpreter" in text


def test_names_from_outside_are_escaped(synthetic: Synthetic) -> None:
    bad = "<script>alert('x')</script>"
    checks = [(bad, False, float("nan"), 0.0, bad)]
    source = render(synthetic(labels=[bad] * 10, checks=checks, attacks=["pgd linf"]))
    assert source.count("<script") == 1
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in source


def test_nothing_is_loaded_from_anywhere(page: Callable[..., Page], synthetic: Synthetic, tmp_path: Path) -> None:
    source = report.html(synthetic(), tmp_path / "deep" / "report.html").read_text(encoding="utf-8")
    links = r'<a href="https://(?:atlas\.mitre\.org|scholar\.google\.com)/[^"]*" rel="noreferrer">'
    assert not re.search(r"https?://|//cdn|@import|url\(", re.sub(links, "<a>", source))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["report.html"]
    for tag, attrs in Page(source).tags:
        for name in ("src", "href"):
            value = attrs.get(name) or "#"
            assert value.startswith(("data:", "#")) or tag == "a", (tag, value[:60])


def test_structure_for_readers_of_all_kinds(page: Callable[..., Page]) -> None:
    found = page(gates=[{"measure": "clean_accuracy", "at_least": 0.9}])
    assert found.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    ids = [str(attrs["id"]) for _, attrs in found.tags if "id" in attrs]
    assert max(Counter(ids).values()) == 1
    assert {str(a["href"])[1:] for a in found.all("a") if str(a["href"]).startswith("#")} <= set(ids)
    headings = [attrs for tag, attrs in found.tags if re.fullmatch("h[1-4]", tag) and attrs.get("id") != "h-compare"]
    assert all(attrs.get("id") for attrs in headings)
    assert len(found.all("a")) >= len(headings) == sum(a.get("class") == "permalink" for a in found.all("a"))
    images = found.all("img")
    assert len(images) == 2 + 4 * (3 + 2 + 3 + 3)  # samples × (images, changes, two rows of maps)
    pictures = [image for image in images if image["src"] != "data:,"]  # the others are for the comparison at full size
    assert all(image.get("alt") and image.get("width") and image.get("height") for image in pictures)
    assert all(image.get("class") == "pixel" for image in pictures)  # 64 pixels wide: shown as squares
    assert all(cell.get("scope") in ("col", "row") for cell in found.all("th"))
    scrolling = [div for div in found.all("div") if div.get("class") == "scroll"]
    assert len(scrolling) == len(found.all("table"))
    assert all(div.get("tabindex") == "0" and div.get("aria-label") for div in scrolling)


def test_blind_attacks_come_first_everywhere(page: Callable[..., Page], synthetic: Synthetic) -> None:
    checks = (
        ("gradients", False, 1.0, 0.05, "The gradient is zero."),
        ("beats_noise", False, 0.633, 0.184, "Noise wins."),
    )
    options: dict[str, Any] = {"checks": checks, "attacks": ["fgsm linf"], "gallery": 0}
    options["gates"] = [{"measure": "clean_accuracy", "at_least": 0.99}]
    found, source = page(**options), render(synthetic(**options))
    assert "These numbers cannot be believed: the model has no gradient" in found.text
    assert 'id="h-verdict" class="bad"' in source and 'class="icon good"' not in source
    assert "Serious The attacks were blind and the true rate may be higher: fgsm linf fools" in found.text
    assert found.text.count("Checks say that the attacks were blind.") == 5  # at the head of every section of figures
    assert "Withstood" not in found.text
    # what a check measures, with unit and direction; and the gate that does not hold is above everything else
    lead = f"Lead of random noise over the attack beats_noise +63.3{SPACE}points at most 18.4{SPACE}points"
    assert lead in found.text and f"no gradient gradients 100.0{SPACE}% at most 5.0{SPACE}%" in found.text
    assert found.text.index("1 of 1 gate missed") < found.text.index("Prediction–interpretation gap")
    assert "Clean accuracy: 0.95, must be at least 0.99" in found.text


def test_every_attack_has_a_row_for_each_size_with_its_sources(page: Callable[..., Page]) -> None:
    found = page()
    sizes = [str(attrs["data-size"]) for attrs in found.all("tr") if "data-size" in attrs]
    assert Counter(sizes) == {f"L∞ eps {k}/255": 3 + (k == 8) for k in (2, 4, 8)} | {
        f"L2 eps {k}": 1 for k in ("0.25", "0.5", "1")
    }
    assert sum("data-largest" in attrs for attrs in found.all("tr")) == 5
    links = [str(attrs.get("href")) for attrs in found.all("a")]
    assert "https://atlas.mitre.org/techniques/AML.T0043.000" in links and "#attack-pgd" in links
    assert any("Towards+Deep+Learning+Models" in link for link in links)
    assert any("download" in attrs and str(attrs["href"]).startswith("data:text/yaml") for attrs in found.all("a"))
    assert "underfire show adv2" in found.text


def test_two_pairs_are_not_significant(page: Callable[..., Page]) -> None:
    text = page(n=3, gallery=0).text
    assert "too few pairs" in text
    assert not re.search(
        r"\bsignificant\b", text.replace("A difference is significant if there are at least 6 pairs", "")
    )


def test_gates_say_held_missed_or_no_result(page: Callable[..., Page]) -> None:
    gates = [
        {"measure": "clean_accuracy", "at_least": 0.9},
        {"measure": "robust_accuracy", "attack": "pgd linf", "eps": 8 / 255, "at_least": 0.3},
        {"measure": "worst_accuracy", "norm": "l2", "eps": 1.0, "at_least": 0.1},
    ]
    # without the checks and the last size of PGD in L2
    text = page(gates=gates, missing=2, attacks=["pgd linf", "pgd l2"], gallery=0).text
    assert "0 of 3 gates held" in text
    assert re.search(r"Not sure Clean accuracy estimate 0\.95 at least 0\.9", text)
    assert re.search(r"Missed Robust accuracy pgd linf eps 8/255 estimate 0\.02 at least 0\.3", text)
    assert re.search(r"No result Worst accuracy L2 eps 1 estimate – at least 0\.1", text)
    confident = {"measure": "clean_accuracy", "at_least": 0.9, "confident": True}
    text = page(gates=[gates[0], confident], checks=(), attacks=["pgd linf"], gallery=0).text
    assert re.search(r"Held Clean accuracy estimate 0\.95 at least 0\.9", text)
    assert re.search(r"Missed Clean accuracy lower end of the 95.% interval 0\.88\d at least 0\.9", text)


@pytest.mark.parametrize(("missing", "words"), [(3, "7 of 11 cells are missing"), (1, "1 of 11 cells is missing")])
def test_an_incomplete_run_says_so(page: Callable[..., Page], missing: int, words: str) -> None:
    assert words in page(missing=missing, attacks=["pgd linf"], gallery=0).text


def test_a_complete_run_does_not(page: Callable[..., Page]) -> None:
    assert "incomplete" not in page().text


@pytest.mark.parametrize("missing", [14, 15])
def test_a_run_that_has_hardly_begun_has_a_page(page: Callable[..., Page], missing: int) -> None:
    text = page(missing=missing).text
    assert "The model has not been attacked yet" in text
    assert "Can these numbers be believed? Not checked" in text
    assert "nan" not in text


def test_unknown_evidence_is_not_a_number(page: Callable[..., Page]) -> None:
    assert "Mass inside higher is better n" in page().text


def test_without_masks_there_is_no_such_column(page: Callable[..., Page]) -> None:
    text = page(masks=False, labels=None, attacks=["pgd linf", "adv2 grad_cam"]).text
    assert "Mass inside higher is better n" not in text  # the last column but one of a table of maps
    assert not re.search(r"\bnan\b", text)
    assert "class 3" in text


def test_an_attack_at_one_size_promises_nothing_below_it(synthetic: Synthetic) -> None:
    source = render(synthetic(attacks=["pgd linf", "adv2 grad_cam"]))
    row = re.search(r'data-curve="(\d)"><svg(?:(?!</svg>).)*</svg>\s*adv2 grad_cam<', source, re.DOTALL)
    assert row and source.count(f'data-series="{row[1]}"') == 4  # a whisker and a name too, and its line has one point
    assert source.count("A mark without a curve") == 1


def test_one_attack_needs_no_legend(page: Callable[..., Page]) -> None:
    found = page(attacks=["pgd linf"])
    assert not any("data-curve" in attrs for attrs in found.all("span"))
    assert "all attacks together" not in found.text
    assert "No attack was aimed at an explanation" in found.text


def test_one_sample_has_no_interval_to_show(page: Callable[..., Page]) -> None:
    assert "nan" not in page(n=1, gallery=0).text


def test_the_spec_on_the_page_is_the_spec(synthetic: Synthetic) -> None:
    gate = {"measure": "robust_accuracy", "attack": "pgd linf", "eps": 8 / 255, "at_least": 0.9}
    spec = synthetic(gates=[gate, {"measure": "clean_accuracy", "at_least": 0.9}]).spec
    text = spec_yaml(spec)
    assert "eps: [2/255, 4/255, 8/255]" in text
    assert "  eps: 8/255\n" in text
    again = parse_spec(yaml.safe_load(text))
    assert again.model_dump() == parse_spec(spec.model_dump()).model_dump()


def test_an_odd_size_is_not_rounded_to_grey_levels(synthetic: Synthetic) -> None:
    ledger = synthetic()
    attack = ledger.spec.attacks[0].model_copy(update={"eps": [0.0313726]})
    spec: Any = ledger.spec.model_copy(update={"attacks": [attack]})
    assert yaml.safe_load(spec_yaml(spec))["attacks"][0]["eps"] == [0.0313726]
