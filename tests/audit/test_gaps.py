"""The gap, the transfer matrix and the bound of a real run, each against a slow computation from its maps."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

import underfire as uf
from underfire.audit.binding import bounded
from underfire.audit.kinds.craft import _several
from underfire.audit.ledger import Ledger
from underfire.audit.run import run
from underfire.audit.spec import parse_spec
from underfire.audit.summary import Findings, findings

pytestmark = pytest.mark.slow
EPS = [0.04, 0.1, 0.2]
MAPS = ["gradient", "cam", "integrated_gradients"]
Images = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """A run of PGD and of ADV² on two maps, at three sizes, that keeps every image and every map."""
    quick = {"name": "adv2", "steps": 8, "warm_steps": 5, "confidence": 0.1}  # the network is never sure
    spec = {
        "model": "python:audit_networks:pooling",
        "data": {"uri": "digits:", "n": 16, "seed": 1},
        "attacks": [
            {"name": "pgd", "label": "PGD", "eps": EPS, "steps": 8},
            {**quick, "label": "on CAM", "interpreter": "cam", "eps": EPS},
            {**quick, "label": "on IG", "interpreter": "integrated_gradients", "eps": EPS[1:], "goal": "random-target"},
        ],
        "interpreters": [
            "gradient",
            "cam",
            {"name": "integrated_gradients", "steps": 12, "baseline": "white", "derivative_steps": 2},
        ],
        "measures": ["map_l2"],
        "masking": False,
        "gallery": 16,
    }
    return run(parse_spec(spec), tmp_path_factory.mktemp("gaps") / "run")


@pytest.fixture(scope="module")
def found(ledger: Ledger) -> Findings:
    return findings(ledger)


@pytest.fixture(scope="module")
def images(ledger: Ledger) -> dict[tuple[str, float], Images]:
    """The images that the model gets right, by name, for every attack and size, with their distances on every map."""
    model, made = uf.models.load("python:audit_networks:pooling"), {}
    for row in ledger.sql("SELECT DISTINCT cell, label, eps FROM rows"):
        kept, ids = ledger.gallery(row["cell"]), ledger.gallery_ids(row["cell"])
        before, after = (model.predict(kept[name]).softmax(1) for name in ("x", "x_adv"))
        rows = {r["id"]: r for r in ledger.sql(f"SELECT id, y, goal FROM rows WHERE cell = '{row['cell']}'")}
        made[row["label"], row["eps"]] = {
            name: {
                "changed": after[i].argmax().item() != rows[name]["y"],
                "success": _won(after[i].argmax().item(), **rows[name]),
                "confidence": after[i].max().item(),
                **{m: distances(kept[f"map_clean.{m}"][i], kept[f"map_adv.{m}"][i]) for m in MAPS},
            }
            for i, name in enumerate(ids)
            if before[i].argmax().item() == rows[name]["y"]
        }
    return made


def _won(pred: int, *, y: int, goal: int, **_: Any) -> bool:
    return pred == goal if goal >= 0 else pred != y


def distances(m: Tensor, n: Tensor) -> dict[str, float]:
    """L1, L2 and IoU of two maps, with loops."""
    scaled = []
    for values in (m.flatten().tolist(), n.flatten().tolist()):
        low, high = min(values), max(values)
        scaled.append([(v - low) / (high - low) for v in values])
    gaps = [a - b for a, b in zip(*scaled, strict=True)]
    count = round(0.2 * len(gaps))
    top = [set(sorted(range(len(v)), key=lambda i: (-v[i], i))[:count]) for v in (m.flatten(), n.flatten())]
    return {
        "l1": sum(map(abs, gaps)) / len(gaps),
        "l2": (sum(g * g for g in gaps) / len(gaps)) ** 0.5,
        "iou": len(top[0] & top[1]) / len(top[0] | top[1]),
    }


def slow_gap(images: dict[tuple[str, float], Images], interpreter: str, sizes: list[float]) -> float:
    """The ratio of the areas, image by image."""
    kept = won = 0.0
    for name in images["PGD", EPS[0]]:
        curve = [(0.0, 0.0, 0.0)]
        for eps in sizes:
            best, fell = 0.0, 0.0
            for (_, size), rows in images.items():
                if size <= eps and rows[name]["changed"]:
                    iou = rows[name][interpreter]["iou"]
                    best, fell = max(best, (2 * iou / (1 + iou) - 0.2) / 0.8), 1.0
            curve.append((eps, best, fell))
        for a, b in pairwise(curve):
            kept += (b[0] - a[0]) * (a[1] + b[1]) / 2
            won += (b[0] - a[0]) * (a[2] + b[2]) / 2
    return kept / won


def test_the_gap_of_every_interpreter(found: Findings, images: dict[tuple[str, float], Images]) -> None:
    by_name = {gap.interpreter: gap for gap in found.gaps}
    assert (
        {name: list(gap.sizes) for name, gap in by_name.items()}
        == {
            "gradient": EPS,  # no attack is aimed at it: the sizes are those of all
            "cam": EPS,
            "integrated_gradients": EPS[1:],
        }
    )
    assert {name: gap.aimed for name, gap in by_name.items()} == {
        "gradient": (),
        "cam": ("on CAM",),
        "integrated_gradients": ("on IG",),
    }
    for name, gap in by_name.items():
        assert gap.value.value == pytest.approx(slow_gap(images, name, list(gap.sizes)), abs=1e-5)
        assert gap.plain.value <= gap.value.value and gap.value.low <= gap.value.value <= gap.value.high
        assert all(a <= b for a, b in pairwise(gap.fooled))
    assert any(gap.plain.value < gap.value.value for gap in found.gaps)
    assert found.gaps[0].aimed and not found.gaps[-1].aimed
    assert f"{found.gaps[0].value.value:.2f}" in found.gap and found.gaps[0].interpreter in found.gap


def test_success_confidence_and_distances_of_every_attack_on_every_map(
    ledger: Ledger, found: Findings, images: dict[tuple[str, float], Images]
) -> None:
    assert {(t.label, t.eps, t.source) for t in found.interpreter_transfers} == {
        ("PGD", 0.2, ""),
        ("on CAM", 0.2, "cam"),
        ("on IG", 0.2, "integrated_gradients"),
    }
    assert len(found.interpreter_transfers) == 3 * len(MAPS)
    for t in found.interpreter_transfers:
        known = images[t.label, t.eps].values()
        won = [row for row in known if row["success"]]
        assert t.success.value == len(won) / len(known) and t.l1.n == len(won) > 0
        assert t.confidence == pytest.approx(np.mean([row["confidence"] for row in won]), abs=1e-5)
        for name, mean in (("l1", t.l1), ("l2", t.l2), ("iou", t.iou)):
            assert mean is not None
            assert mean.value == pytest.approx(np.mean([row[t.target][name] for row in won]), abs=1e-5), (t, name)
    # the ledger has the same matrix
    rows = ledger.sql("SELECT label, target, avg(l1) AS l1 FROM interpreter_transfer WHERE eps = 0.2 GROUP BY ALL")
    assert {(row["label"], row["target"]): pytest.approx(row["l1"]) for row in rows} == {
        (t.label, t.target): t.l1.value for t in found.interpreter_transfers
    }


def test_a_complete_map_has_its_bound(ledger: Ledger, found: Findings) -> None:
    query = """
    SELECT interpreter, label, eps, id, any_value(value) FILTER (measure = 'map_change') AS change,
           any_value(value) FILTER (measure = 'map_change_bound') AS least
    FROM measures WHERE measure LIKE 'map_change%' GROUP BY ALL
    """
    rows = ledger.sql(query)
    assert {row["interpreter"] for row in rows} == {"integrated_gradients"}
    assert len(rows) == 16 * 8
    assert all(row["least"] <= row["change"] + 5e-3 for row in rows)
    assert np.mean([row["least"] for row in rows]) > 0.01
    told = {s.interpreter for s in found.shifts if "map_change_bound" in s.measures}
    assert told == {"integrated_gradients"}


def test_an_attack_on_several_maps_is_no_plain_attack(content: Callable[..., Any], tmp_path: Path) -> None:
    both = {"name": "adv2_ensemble", "label": "both", "interpreters": ["gradient", "cam"], "steps": 2, "warm_steps": 2}
    attacks = [{**both, "eps": 0.2}, {"name": "pgd", "label": "PGD", "eps": 0.2, "steps": 2}]
    network = {"model": "python:audit_networks:pooling", "data": {"uri": "digits:", "n": 6, "seed": 1}}
    spec = parse_spec(
        content(attacks=attacks, interpreters=[{"name": "cam", "label": "CAM"}, "grad_cam"], gallery=0, **network)
    )
    found = findings(run(spec, tmp_path / "run"))
    assert {gap.interpreter: gap.aimed for gap in found.gaps} == {"CAM": ("both",), "grad_cam": ()}
    assert {(t.label, t.source) for t in found.interpreter_transfers} == {("PGD", ""), ("both", "gradient, CAM")}
    assert not found.differences


def test_lists_of_interpreters_name_those_of_the_spec_with_their_options(content: Callable[..., Any]) -> None:
    attack = {"name": "adv2_ensemble", "eps": 0.2, "norm": "patch", "interpreters": ["GRAD", "cam", "rts"]}
    detector = {"name": "ensemble_interpretation", "interpreters": ["GRAD", {"name": "gradient", "pool": 2}]}
    spec = parse_spec(
        content(
            attacks=[attack],
            interpreters=[{"name": "gradient", "label": "GRAD", "pool": 4}, "cam", "grad_cam"],
            detectors=[detector],
            data={"uri": "digits:", "n": 6},
        )
    )
    pooled = {"name": "gradient", "pool": 4}
    assert spec.attacks[0].options["interpreters"] == [pooled, "cam", "rts"]
    assert spec.detectors[0].options["interpreters"] == [pooled, {"name": "gradient", "pool": 2}]
    assert _several(spec.attacks[0], spec) == ["GRAD", "cam", "rts"]


@pytest.mark.parametrize(
    ("interpreter", "known"),
    [
        ("grad_cam", []),
        ({"name": "integrated_gradients", "neuron": "0:1"}, []),
        ({"name": "integrated_gradients", "baseline": "many"}, []),
        ("integrated_gradients", ["map_change", "map_change_bound"]),
    ],
)
def test_which_maps_have_a_bound(content: Callable[..., Any], interpreter: Any, known: list[str]) -> None:
    spec = parse_spec(content(interpreters=[interpreter]))
    assert [entry.name for entry in bounded(spec.interpreters[0])] == known
