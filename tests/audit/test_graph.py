"""The graph: what a key depends on, what a change costs, and that nothing is computed twice."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from underfire import data
from underfire.audit import graph
from underfire.audit.graph import Cell, Schedule, to_compute
from underfire.audit.plan import plan
from underfire.audit.run import Event, run
from underfire.audit.spec import AuditSpec, parse_spec
from underfire.audit.store import Store
from underfire.audit.target import open_target
from underfire.catalog import Card, InterpreterFacts
from underfire.catalog.registry import _CARDS
from underfire.hooks import unwrap
from underfire.interpreters.gradient import gradient
from underfire.records import Batch

pytestmark = pytest.mark.slow  # one of the twenty heaviest files

Small = Callable[..., AuditSpec]
ATTACK = {"name": "pgd", "norm": "linf", "eps": [0.02, 0.1], "steps": 10}


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_key_is_a_hash_of_options_and_needs_and_of_nothing_else() -> None:
    one = Cell("a", {"x": 1})
    assert one.key == Cell("a", {"x": 1}, about={"label": "other"}, images=5, kept_bytes=7).key
    others = [Cell("b", {"x": 1}), Cell("a", {"x": 2}), Cell("a", {"x": 1}, {"n": one})]
    others += [Cell("a", {"x": 1}, {"n": others[1]}), Cell("a", {"x": 1}, {"m": one})]
    assert len({cell.key for cell in (one, *others)}) == 6


def test_values_beside_the_state_of_a_model_are_in_its_keys(small: Small) -> None:
    """A plain number, a buffer that is not saved, a tensor that is no buffer, a function."""
    target = open_target(small())
    head = unwrap(target.model)

    def weights() -> str:
        vars(target).pop("weights", None)
        return target.weights

    found = [weights(), weights()]
    head.scale = 2.0  # type: ignore[assignment]
    found.append(weights())
    head.scale = 3.0  # type: ignore[assignment]
    found.append(weights())
    head.register_buffer("shift", torch.zeros(1), persistent=False)
    found.append(weights())
    head.shift = torch.ones(1)
    found.append(weights())
    vars(head)["table"] = [torch.ones(1)]
    found.append(weights())
    head.after = lambda z: z + 1
    found.append(weights())
    head.after = lambda z: z + 2
    found.append(weights())
    assert found[0] == found[1]
    assert len(set(found)) == len(found) - 1


@pytest.mark.parametrize(
    ("change", "computed"),
    [
        ({"gallery": 9}, {"gallery": 2}),
        ({"gallery": 0}, {}),
        ({"batch_size": 7}, {}),
        ({"attacks": [{**ATTACK, "label": "other"}]}, {}),
        ({"masking": True}, {"probe": 11, "masking": 1}),
        ({"gates": [{"measure": "clean_accuracy", "at_least": 0.5}]}, {}),
        ({"keep_gb": 0}, {}),
        ({"model": {"uri": "python:audit_networks:linear", "labels": list("abcdefghij")}}, {}),
        ({"interpreters": ["gradient", "gradient_input"]}, {"explain": 3, "measure": 2, "gallery": 2}),
        ({"interpreters": []}, {"gallery": 2}),
        ({"measures": ["map_iou", "insertion"]}, {"measure": 4}),
        ({"measures": ["map_l1", "map_l2", "map_iou", "mass_inside", "l0_pixels"]}, {"measure": 2}),
        ({"attacks": [{**ATTACK, "eps": [0.1, 0.3]}]}, {"craft": 1, "explain": 1, "measure": 1, "gallery": 1}),
        ({"attacks": [ATTACK, "fgsm"]}, {"craft": 1, "explain": 1, "measure": 1, "gallery": 1}),
        ({"attacks": [{**ATTACK, "steps": 11}]}, {"craft": 2, "explain": 2, "measure": 2, "gallery": 2}),
        ({"seeds": [1]}, {"craft": 2, "explain": 2, "measure": 2, "gallery": 2}),
    ],
)
def test_a_change_costs_what_it_changes(small: Small, change: dict[str, Any], computed: dict[str, int]) -> None:
    before = {cell.key for cell in plan(small())}
    added = {cell.key: cell.kind for cell in plan(small(**change)) if cell.key not in before}
    assert Counter(added.values()) == computed


@pytest.mark.parametrize(
    "spellings",
    [
        [{"move": "momentum"}, {"move": "momentum()"}, {"move": {"name": "momentum"}}, {"move": "momentum(decay=1)"}],
        [{"views": v} for v in ("scale_copies(3)", ["scale_copies(3)"], [{"name": "scale_copies", "copies": 3}])],
        [{"step_rule": "1/4"}, {"step_rule": 0.25}],
        [{"step_rule": "cosine(0.5)"}, {"step_rule": "cosine(1/2)"}],
        [{"estimate": "variance_tuned(4, radius=9/100)"}, {"estimate": "variance_tuned(samples=4, radius=0.09)"}],
    ],
)
def test_spellings_of_one_option_have_one_key(small: Small, spellings: list[dict[str, Any]]) -> None:
    target = open_target(small())
    entries = [{"name": "recipe", "eps": 0.1, "objective": "cross_entropy", **given} for given in spellings]
    specs = [small(attacks=[entry], interpreters=[]) for entry in entries]
    assert len({cell.key for spec in specs for cell in plan(spec, target) if cell.kind == "craft"}) == 1
    assert all(parse_spec(spec.model_dump()) == spec for spec in specs)


class _Images:
    """2,048 images, of which one pixel of one image is changed."""

    labels = None

    def __init__(self, change: float) -> None:
        images = data.load("digits:", n=64, seed=1)[:]
        self.x, self.y = images.x.repeat(32, 1, 1, 1), images.y.repeat(32)
        self.x[1500, 0, 0, 0] += change

    def __len__(self) -> int:
        return len(self.x)

    def read(self, index: list[int]) -> Batch:
        return Batch(self.x[index], self.y[index], tuple(f"image {i}" for i in index))


def test_every_image_is_in_the_keys(small: Small) -> None:
    """Also those that lie between the images that the model classifies first."""
    digests = []
    for change in (0.0, 0.5):
        target = open_target(small())
        target.data = data.Dataset("many", _Images(change))
        assert 1500 not in target.spread(1024)
        assert len(target.preview.y) == 1024
        digests.append(target.preview.digest)
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    "change",
    [
        {"model": "python:audit_networks:saturated"},
        {"model": {"uri": "python:audit_networks:linear", "mean": 0.1}},
        {"data": {"uri": "digits:", "n": 60, "seed": 2}},
        {"shard_size": 30},
    ],
)
def test_another_model_or_other_data_change_everything(small: Small, change: dict[str, Any]) -> None:
    assert not {cell.key for cell in plan(small())} & {cell.key for cell in plan(small(**change))}


def test_the_plan_has_a_cell_for_every_attack_size_seed_and_shard(small: Small) -> None:
    attacks = [{"name": "pgd", "eps": [0.1, 0.2]}, {"name": "fgsm", "eps": 0.1}]
    cells = plan(small(attacks=attacks, seeds=[3, 4], shard_size=25, masking=True, interpreters=[], measures=[]))
    kinds = Counter(cell.kind for cell in cells)  # fgsm is not random, and the checks have 50 images
    assert kinds == {"clean": 3, "craft": 2 * 2 * 3 + 3, "gallery": 2 * 2 + 1, "probe": 11 * 2, "masking": 1}
    assert sum(cell.images for cell in cells if cell.kind == "clean") == 60
    assert len({cell.key for cell in cells}) == len(cells)


# --- order -----------------------------------------------------------------------------------------------------------


def _diamond() -> list[Cell]:
    a = Cell("a", {})
    b, c = (Cell("b", {"i": i}, {"a": a}, kept_bytes=10) for i in range(2))
    return [a, b, c, Cell("d", {}, {"b": b, "c": c})]


def test_a_cell_starts_as_soon_as_its_needs_are_done() -> None:
    a, b, c, d = _diamond()
    e = Cell("e", {}, {"b": b})
    schedule = Schedule(to_compute([a, b, c, d, e], set(), set()))
    assert schedule.start(100) == [a]
    assert schedule.start(100) == []
    schedule.finish(a)
    assert schedule.start(100) == [b, c]
    schedule.finish(b)
    assert schedule.start(100) == [e]  # while c is still running
    schedule.finish(c)
    schedule.finish(e)
    assert schedule.start(100) == [d]
    schedule.finish(d)
    assert (schedule.start(100), schedule.left) == ([], {})


def test_cells_wait_for_room_for_their_arrays() -> None:
    a, b, c, d = _diamond()
    for room in (15, 0):  # for the arrays of one; for none, but a run never stops
        schedule = Schedule(to_compute([a, b, c, d], {a.key}, set()))
        assert schedule.start(room) == [b]
        assert schedule.start(room) == []
        schedule.finish(b)
        assert schedule.start(room) == [c]
    assert Schedule({d.key: d}).start(0) == [d]  # what is not to be computed is not waited for


def test_arrays_that_were_dropped_are_made_again_if_something_new_reads_them() -> None:
    a, b, c, d = _diamond()
    done = {a.key, b.key, c.key}
    assert set(to_compute([a, b, c, d], done, {b.key})) == {c.key, d.key}
    assert set(to_compute([a, b, c, d], {*done, d.key}, set())) == set()
    assert graph.depth(d) == 2


# --- what a run asks the model ---------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """An interpreter `counted`, and what it was called with: the sums of its images."""
    calls: list[tuple[int, ...]] = []

    def counted(model: Any, x: Tensor, y: Tensor) -> Tensor:
        if len(x) > 2:  # not when a run tries it out
            calls.append(tuple((x * 16).flatten(1).sum(1).long().tolist()))
        return gradient(model, x, y)

    monkeypatch.setitem(_CARDS, ("interpreter", "counted"), _card(counted))
    return calls


def _card(function: Callable[..., Tensor]) -> Card[Any]:
    return Card("interpreter", "counted", function, "none", InterpreterFacts())


def _kinds(spec: AuditSpec, folder: Path) -> Counter[str]:
    """How many cells of each kind a run computes."""
    before = Store(folder).keys()
    run(spec, folder)
    kinds = {cell.key: cell.kind for cell in plan(spec)}
    return Counter(kinds[key] for key in Store(folder).keys() - before if key in kinds)


def test_every_clean_map_and_answer_is_computed_once(
    small: Small, tmp_path: Path, asked: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from underfire.audit.target import Target

    answers: list[int] = []
    ask = Target.logits
    monkeypatch.setattr(Target, "logits", lambda self, batch: answers.append(len(batch)) or ask(self, batch))
    attacks = [{**ATTACK, "eps": [0.02, 0.05, 0.1]}, {"name": "fgsm", "eps": [0.02, 0.1]}]
    run(small(attacks=attacks, interpreters=["counted"], shard_size=30), tmp_path / "run")
    assert Counter(asked).most_common(1)[0][1] == 1  # no batch of images is explained twice
    assert len(asked) == 2 * (1 + 5)  # two shards; clean, and under five attacks
    assert sum(answers) == 60 + 60  # the preview before anything runs, and the clean cells


def test_another_interpreter_runs_no_attack(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(small(), tmp_path / "run")

    def attacked(*_: Any, **__: Any) -> Tensor:
        raise AssertionError("an attack was run")

    from underfire.audit.kinds import craft

    monkeypatch.setattr(craft, "attack_of", attacked)
    more = small(interpreters=["gradient", "gradient_input"], gallery=5, batch_size=13, measures=["map_ssim", "l2"])
    ledger = run(more, tmp_path / "run")
    assert ledger.missing == 0
    assert ledger.sql("SELECT DISTINCT interpreter FROM maps ORDER BY ALL") == [
        {"interpreter": "gradient"},
        {"interpreter": "gradient_input"},
    ]


def test_the_numbers_do_not_depend_on_the_batch_size(small: Small, tmp_path: Path) -> None:
    query = "SELECT id, eps, pred_adv, linf, l2 FROM rows ORDER BY ALL"
    one = run(small(batch_size=60), tmp_path / "one").sql(query)
    assert run(small(batch_size=7), tmp_path / "seven").sql(query) == one


# --- the budget of disk ----------------------------------------------------------------------------------------------


def test_what_is_over_the_budget_is_dropped_and_made_again(small: Small, tmp_path: Path) -> None:
    def arrays() -> set[str]:
        return set(filter(re.compile("-arrays$").search, Store(tmp_path / "run").keys()))

    rows = "SELECT * EXCLUDE seconds FROM rows ORDER BY ALL"
    first = run(small(keep_gb=0), tmp_path / "run").sql(rows)
    assert arrays() == set()
    events: list[Event] = []
    assert run(small(keep_gb=0), tmp_path / "run", progress=events.append).sql(rows) == first
    assert events == [Event(0, 0, 0, 0, 10, "")]  # the numbers are there, so nothing is made again
    more = small(interpreters=["gradient", "gradient_input"], gallery=0)
    assert _kinds(more, tmp_path / "run") == {"explain": 3, "measure": 2}
    assert len(arrays()) == 2 + 3  # the two attacks, made again, and the new maps
    kept = run(small(), tmp_path / "kept").sql(rows)
    assert kept == first
    run(small(keep_gb=0), tmp_path / "run")  # nothing is computed, and the smaller budget holds
    assert arrays() == set()


def test_arrays_that_another_run_deletes_in_the_meantime_are_made_again(small: Small, tmp_path: Path) -> None:
    """Two runs share a folder, and the budget of one is too small for the arrays that the other still needs."""
    store = Store(tmp_path / "run")

    def delete(event: Event) -> None:
        for key in filter(re.compile("-arrays$").search, store.keys()):
            store.delete(key)

    rows = "SELECT * EXCLUDE seconds FROM rows ORDER BY ALL"
    disturbed = run(small(), tmp_path / "run", progress=delete)
    alone = run(small(), tmp_path / "alone")
    assert disturbed.sql(rows) == alone.sql(rows)
    maps = "SELECT cell, id, eps, map_l1, map_iou FROM maps ORDER BY ALL"
    assert disturbed.sql(maps) == alone.sql(maps)


def test_an_attack_made_again_is_the_same_in_every_bit(small: Small, tmp_path: Path) -> None:
    ledger = run(small(), tmp_path / "run")
    again = run(small(gallery=0, keep_gb=0), tmp_path / "again")
    more = run(small(gallery=3), tmp_path / "again")
    key = ledger.sql("SELECT DISTINCT cell FROM rows WHERE eps = 0.1")[0]["cell"]
    assert again.gallery(key) == {}
    assert torch.equal(more.gallery(key)["x_adv"], ledger.gallery(key)["x_adv"])
