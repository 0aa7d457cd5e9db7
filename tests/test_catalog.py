"""The catalogue: facts with types, options that are checked, and cards that look like their methods."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
import torch
from torch import Generator, Tensor, nn

import underfire as uf
from underfire.catalog import AttackFacts, Card, Converter, InterpreterFacts, MeasureFacts, cards, facts_of
from underfire.catalog.options import converters
from underfire.catalog.registry import _CARDS
from underfire.domains import Domain
from underfire.errors import InputError, Unsupported


class View:
    """Stands for a part of a recipe."""

    def __init__(self, name: str) -> None:
        self.name = name


def example(
    model: Any,
    x: Tensor,
    y: Tensor,
    *,
    size: float,
    steps: int = 3,
    keep: Literal["last", "best"] = "last",
    layer: str | tuple[str, ...] | None = None,
    grid: tuple[int, int] | None = None,
    weight: float | tuple[float, float] = 1.0,
    flag: bool = False,
    view: View | None = None,
    views: Sequence[View] = (),
    mask: Tensor | None = None,
    transform: Callable[[Tensor, Generator | None], Tensor] | None = None,
) -> Tensor:
    """Return the images."""
    return x


CARD = Card("attack", "example", example, "Example, A Paper, 2026", AttackFacts())


@pytest.fixture
def forgotten():
    """Take what a test puts into the catalogue out again."""
    list(cards())  # the catalogue is filled by the first question
    before = dict(_CARDS)
    yield
    _CARDS.clear()
    _CARDS.update(before)


@pytest.fixture
def view_parser(monkeypatch):
    def convert(value):
        if value == "bad":
            raise InputError("no view 'bad'")
        return View(value)

    monkeypatch.setitem(converters, View, Converter("the name of a view", convert))


# --- facts ------------------------------------------------------------------------------------------------------------


def enter(kind, **facts):
    @uf.card(kind, paper="Example, A Paper, 2026", **facts)
    def entered(model, x, y):
        """Return nothing."""

    return entered


@pytest.mark.parametrize(
    ("kind", "facts", "named"),
    [
        ("atack", {}, ["'atack'", "'attack'"]),
        ("attack", {"minimum": True}, ["'minimum'", "'minimal'"]),
        ("attack", {"random": "no"}, ["'random'", "'no'"]),
        ("attack", {"norms": "linf"}, ["'norms'", "'linf'"]),
        ("attack", {"goals": ("targetted",)}, ["'goals'", "'untargeted'"]),
        ("interpreter", {"gives": "maps"}, ["'gives'", "'map'", "'maps'"]),
        ("measure", {}, ["'higher_is_better'"]),
        ("measure", {"higher_is_better": True, "table": "row"}, ["'table'", "'rows'", "'row'"]),
        ("part", {"role": "view_"}, ["'role'", "'view'"]),
        ("part", {}, ["'role'"]),
    ],
)
def test_a_wrong_fact_is_an_error_at_import(kind, facts, named, forgotten):
    with pytest.raises(InputError) as error:
        enter(kind, **facts)
    assert all(word in str(error.value) for word in named), error.value


def test_facts_are_attributes_with_defaults(forgotten):
    enter("attack", norms=("l2",), domains=("image", "table"))
    facts = uf.find("attack", "entered").facts
    assert facts == AttackFacts(norms=("l2",), domains=("image", "table"))
    assert facts.goals == ("untargeted",)
    assert uf.find("attack", "entered").as_dict()["domains"] == ["image", "table"]


def test_a_method_names_its_paper_and_has_its_name_alone(forgotten):
    with pytest.raises(InputError, match="'nameless'"):
        uf.card("attack", name="nameless")(example)
    enter("attack")
    with pytest.raises(InputError, match="'entered'"):
        uf.card("attack", paper="Other, A Paper, 2026", name="entered")(example)


def test_every_card_says_everything_its_kind_has():
    for card in cards():
        assert card.as_dict()["kind"] == card.kind
        assert card.facts.domains


def test_facts_of_a_callable_through_partial_and_object():
    pgd = uf.find("attack", "pgd")
    assert "linf" in facts_of(pgd, AttackFacts()).norms
    assert facts_of(pgd.with_options(steps=2), AttackFacts()) is pgd.facts
    rts = uf.find("interpreter", "rts")
    assert facts_of(rts.with_options(), InterpreterFacts()) is rts.facts
    default = InterpreterFacts(differentiable=True)
    assert facts_of(lambda model, x, y: x, default) is default
    assert facts_of(uf.attacks.pgd, default) is default  # an attack is no interpreter


def test_a_method_of_another_domain_is_refused():
    CARD.check_domain("image")
    with pytest.raises(Unsupported, match="'example' .* image.* table"):
        CARD.check_domain("table")


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"size": "8/255"}, {"size": 8 / 255}),
        ({"size": 2}, {"size": 2.0}),
        ({"size": "1e-3"}, {"size": 1e-3}),
        ({"layer": ["a", "b"]}, {"layer": ("a", "b")}),
        ({"layer": "8/255"}, {"layer": "8/255"}),
        ({"grid": [3, 4]}, {"grid": (3, 4)}),
        ({"grid": None}, {"grid": None}),
        ({"weight": ["1/2", 1]}, {"weight": (0.5, 1.0)}),
        ({"flag": True, "keep": "best"}, {"flag": True, "keep": "best"}),
    ],
)
def test_options_are_converted(given, wanted):
    checked = CARD.check({"size": 1.0} | given)
    assert checked == {"size": 1.0} | wanted
    assert [type(v) for v in checked.values()] == [type(v) for v in ({"size": 1.0} | wanted).values()]


def test_a_python_caller_may_pass_objects():
    mask = torch.ones(2)
    checked = CARD.check({"size": 1.0, "mask": mask, "transform": torch.add})
    assert checked["mask"] is mask
    assert checked["transform"] is torch.add


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"stps": 3}, ["'stps'", "'steps'"]),
        ({"steps": 0}, ["'steps'", "at least 1", "0"]),
        ({"steps": 1.5}, ["'steps'", "a whole number", "1.5"]),
        ({"steps": True}, ["'steps'", "True"]),
        ({"size": "large"}, ["'size'", "a number", "'large'"]),
        ({"flag": 1}, ["'flag'", "true or false", "1"]),
        ({"keep": "lst"}, ["'keep'", "'last'", "'best'", "'lst'"]),
        ({"grid": [3]}, ["'grid'", "a list of 2", "[3]"]),
        ({"weight": ["a", 1]}, ["'weight'", "a number", "a list of 2"]),
        ({"mask": 3}, ["'mask'", "Tensor", "3"]),
        ({"transform": "x"}, ["'transform'", "a function", "'x'"]),
    ],
)
def test_a_wrong_option_is_named_with_what_would_be_right(given, named):
    with pytest.raises(InputError) as error:
        CARD.check({"size": 1.0} | given, path="attacks[0].")
    text = str(error.value).replace("'attacks[0].", "'")
    assert "attacks[0]." in str(error.value)
    assert all(word in text for word in named), text


def test_what_is_missing_is_named_unless_the_caller_has_it():
    with pytest.raises(InputError, match="'size' is missing"):
        CARD.check({})
    assert CARD.check({}, elsewhere=("size", "label")) == {}
    with pytest.raises(InputError, match="'label'"):
        CARD.check({"labl": "x"}, elsewhere=("size", "label"))


def test_a_part_is_made_by_the_converter_of_its_type(view_parser):
    checked = CARD.check({"size": 1.0, "view": "tall", "views": ["tall", "wide"]})
    assert checked["view"].name == "tall"
    assert [view.name for view in checked["views"]] == ["tall", "wide"]
    mine = View("mine")
    assert CARD.check({"size": 1.0, "view": mine})["view"] is mine
    with pytest.raises(InputError, match="'view': no view 'bad'"):
        CARD.check({"size": 1.0, "view": "bad"})
    with pytest.raises(InputError, match="the name of a view"):
        CARD.check({"size": 1.0, "view": 3})


def test_every_default_of_the_catalogue_passes_its_own_check():
    for card in [*cards("attack"), *cards("interpreter"), *cards("measure")]:
        defaults = {n: p.default for n, p in card.options.items() if p.default is not p.empty}
        missing = card.options.keys() - defaults.keys()
        assert card.check(defaults, elsewhere=missing).keys() == defaults.keys()


# --- how a card looks -------------------------------------------------------------------------------------------------


def test_a_card_shows_its_method():
    card = uf.find("attack", "pgd")
    assert inspect.signature(card) == inspect.signature(uf.attacks.pgd)
    assert inspect.unwrap(card) is inspect.unwrap(uf.attacks.pgd)
    assert inspect.getdoc(card) == inspect.getdoc(uf.attacks.pgd)
    assert all(word in repr(card) for word in ("attack", "pgd", "steps=40", "Madry et al. 2018"))


def test_a_fitted_method_is_called_with_its_options_last():
    parameters = list(inspect.signature(uf.find("interpreter", "rts")).parameters)
    assert parameters[:3] == ["model", "x", "y"]
    assert "weights" in parameters


def test_calling_a_card_calls_its_method():
    m = torch.arange(8.0).reshape(2, 1, 2, 2)
    assert uf.find("measure", "map_iou")(m, m).tolist() == [1, 1]


def test_kinds_have_their_own_facts():
    assert {type(card.facts) for card in cards("measure")} == {MeasureFacts}
    with pytest.raises(InputError, match="'attack'"):
        cards("atack")
    with pytest.raises(InputError, match="'pgd'"):
        uf.find("attack", "pdg")


@pytest.mark.parametrize("name", [card.name for card in cards("interpreter") if "table" not in card.facts.domains])
def test_an_interpreter_of_images_refuses_a_model_of_tables(name: str) -> None:
    model = uf.Classifier(nn.Linear(4, 3), domain=Domain("table", 2))
    with pytest.raises(Unsupported, match=f"{name}.*table"):
        uf.find("interpreter", name)(model, torch.zeros(2, 4), torch.tensor([0, 1]))


@pytest.mark.parametrize(("word", "hint"), [("view", "'part'"), ("step-rules", "'step_rule'"), ("atack", "'attack'")])
def test_the_role_of_a_part_is_no_kind(word: str, hint: str) -> None:
    asked: tuple[Callable[[str], Any], ...] = (cards, lambda kind: uf.find(kind, "scale_copies"))
    for ask in asked:
        with pytest.raises(InputError, match=hint):
            ask(word)
