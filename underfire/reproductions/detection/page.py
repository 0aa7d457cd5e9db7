"""Write the page of an experiment on Deep Validation: its tables, its claims, and the sign of kernel density."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from underfire.measures.detection import auroc
from underfire.records import Interval
from underfire.reproductions.detection.corner_case_detectors import (
    DENSITY,
    DENSITY_OWN,
    JOINT,
    NU,
    NUS,
    SQUEEZING,
    Scores,
)
from underfire.reproductions.detection.study import Measured, Study
from underfire.reproductions.registry import Outcome, Setting, table

NAMES = {JOINT: "Deep Validation, joint", SQUEEZING: "feature squeezing", DENSITY: "kernel density"}
SOURCE = "slides on Deep Validation (Wu, Xu, Zhong, Lyu and King, DSN 2019)"

HOW = f"""Each cell is the ROC-AUC with its 95 % DeLong interval. The positive class is the corner cases, a higher
score is more suspicious, and the negatives are clean test images. SCC are successful corner cases, which the model
gets wrong; FCC are failed ones, which it still gets right. The detectors learn from training images that the model
classifies correctly. Every test image has one use: the search for the strengths, the corner cases, or the clean
images. The columns are transformations, and *overall* puts their corner cases together. A single validator is one
layer, the joint validator is the sum over the layers; ν is {NU:g}. Network, features, kernel and ranges are ours; the
paper does not state all of its own."""

_FACTS = """A transformation has the smallest strength at which the model errs on {error_rate:.0%} of other test images;
one that does not reach this within its range is left out. The accuracy is {accuracy} on the clean images. The model
classifies {fitted} of the training images correctly; {dropped} are dropped."""


@dataclass(frozen=True)
class Published:
    """The ROC-AUC of the paper on successful corner cases, overall; and what must be reached.

    Attributes:
        joint, squeezing, density: of Deep Validation, feature squeezing and kernel density.
        least: the ROC-AUC that the joint validator must reach.
        network: the network of the paper.
        notes: further tables of the paper.
    """

    joint: float
    squeezing: float
    density: float
    least: float
    network: str
    notes: tuple[str, ...] = ()


def outcome(study: Study, setting: Setting, found: Measured, published: Published, title: str) -> Outcome:
    """Return the outcome of an experiment with its tables and claims."""
    areas = {key: _areas(found, cases) for key, cases in (("SCC", found.successful), ("FCC", found.failed))}
    claims = decided(areas["SCC"], published, len(found.layers))
    beside = {JOINT: published.joint, SQUEEZING: published.squeezing, DENSITY: published.density}
    columns = ("detector", *(_short(name) for name in found.successful), "overall", f"paper ({published.network})")
    rows = [[*cells, f"{beside[name]:.4f}" if name in beside else "–"] for name, cells in _rows(found, areas["SCC"])]
    failed = table(columns[:-1], [cells for _, cells in _rows(found, areas["FCC"])])
    signs, explained = signs_of(found, published)
    return Outcome(
        title=title,
        source=SOURCE,
        spec=study.spec(setting),
        columns=columns,
        rows=rows,
        notes=[
            "The table has successful corner cases (SCC). " + HOW,
            _FACTS.format(**found.facts, error_rate=study.error_rate),
            "**What must hold**\n\n" + table(("claim", "verdict", "figures"), claims) + missed(areas["SCC"], published),
            "**The corner cases**\n\n" + _cases(found),
            "**Failed corner cases (FCC)**\n\n" + failed,
            "**Sensitivity to ν, and the calibrated mode** (joint validator, overall)\n\n" + _sensitivity(areas),
            f"**Kernel density and its sign**\n\n{signs}\n\n{explained}",
            *published.notes,
        ],
        results={
            "areas": areas,
            "claims": [dict(zip(("claim", "verdict", "figures"), row, strict=True)) for row in claims],
            "strengths": {
                strength.transformation.name: {"setting": strength.setting, "errors": strength.errors}
                for strength in found.strengths
            },
            "layers": found.layers,
            **found.facts,
        },
    )


def decided(areas: Mapping[str, Mapping[str, Interval]], published: Published, layers: int) -> list[list[str]]:
    """Return the claims with their verdicts and the numbers that decide them."""
    joint = areas[JOINT]["overall"]
    best = max((f"layer {number}" for number in range(1, layers + 1)), key=lambda name: areas[name]["overall"].value)
    others = {NAMES[SQUEEZING]: SQUEEZING, NAMES[DENSITY]: DENSITY}
    found = [(f"joint ≥ {published.least:g} overall", joint.value >= published.least, show(joint))]
    for label, name in others.items():
        other = areas[name]["overall"]
        found.append((f"joint above {label}", joint.value > other.value, f"{show(joint)} against {show(other)}"))
    single = areas[best]["overall"]
    figures = f"{show(joint)} against {show(single)} ({best})"
    found.append(("joint ≥ the best single validator", joint.value >= single.value, figures))
    return [[claim, f"**{'reached' if holds else 'missed'}**", figures] for claim, holds, figures in found]


def missed(areas: Mapping[str, Mapping[str, Interval]], published: Published) -> str:
    """Return a sentence on where the joint validator misses its figure; empty if it reaches it overall."""
    joint = areas[JOINT]
    if joint["overall"].value >= published.least:
        return ""
    below = {name: area.value for name, area in joint.items() if area.value < published.least and name != "overall"}
    where = ", ".join(f"{_short(name)} ({below[name]:.3f})" for name in sorted(below, key=lambda name: below[name]))
    return (
        f"\n\nThe joint validator misses {published.least:g} on {where}. The paper has another network and other "
        "corner cases, and does not state its features, its kernel and ν, so that the cause cannot be told from its "
        "text."
    )


def signs_of(found: Measured, published: Published) -> tuple[str, str]:
    """Return the ROC-AUC of kernel density in both signs as a table, and which of them the published one agrees with.

    The density itself, unlike its logarithm, is zero where the exponential underflows; such images are ties.
    """
    values: dict[str, dict[str, Interval]] = {}
    for name, width in ((DENSITY, "the paper's"), (DENSITY_OWN, "the likeliest")):
        clean, cases = (-scores for scores in (found.clean[name], _together(found.successful, name)))
        with np.errstate(under="ignore", over="ignore"):
            densities = [np.minimum(np.exp(scores), np.finfo(np.float64).max) for scores in (clean, cases)]
        values[width] = {
            "minus the log-density": auroc(-clean, -cases),
            "the log-density": auroc(clean, cases),
            "the density": auroc(densities[0], densities[1]),
        }
    rows = [[score, *(show(values[width][score]) for width in values)] for score in values["the paper's"]]
    shown = table(("score", *(f"bandwidth: {width}" for width in values)), rows)
    every = [(abs(area.value - published.density), f"{score}, bandwidth {width}", area, score)
             for width, scores in values.items() for score, area in scores.items()]  # fmt: skip
    _, label, area, score = min(every, key=lambda one: one[0])
    below = [one for one in values.values() if one["minus the log-density"].value < 0.5]
    text = f"The published value is {published.density:.4f}. The nearest of ours is {show(area)} ({label}). "
    if not below and score != "minus the log-density" and area.value < 0.5:
        text += (
            "Only a score that is higher for usual images gives a value below 0.5, so the published one agrees with a "
            f"density that was not negated; negated, it would be {1 - published.density:.4f}. "
            "The script of the authors of kernel density returns the log-density, and leaves the sign to a logistic "
            "regression."
        )
    elif below:
        text += (
            "Here a value below 0.5 needs no wrong sign: features of successful corner cases are denser than those of "
            "clean images."
        )
    else:
        text += "No score here gives a value below 0.5 that would explain the published one."
    return shown, text


def show(area: Interval) -> str:
    """Return a ROC-AUC with its interval."""
    return "–" if np.isnan(area.value) else f"{area.value:.4f} [{area.low:.4f}, {area.high:.4f}]"


def _areas(found: Measured, cases: Mapping[str, Scores]) -> dict[str, dict[str, Interval]]:
    """Return the ROC-AUC of every detector for every transformation and overall."""
    return {
        name: {**{one: found.area(name, cases, one) for one in cases}, "overall": found.area(name, cases)}
        for name in found.clean
    }


def _rows(found: Measured, areas: Mapping[str, Mapping[str, Interval]]) -> list[tuple[str, list[str]]]:
    labels = {f"layer {number}": f"layer {number}, `{layer}`" for number, layer in enumerate(found.layers, 1)} | NAMES
    return [(name, [label, *(show(area) for area in areas[name].values())]) for name, label in labels.items()]


def _cases(found: Measured) -> str:
    rows = []
    for strength in found.strengths:
        name, none = strength.transformation.name, strength.value is None
        most = max(strength.errors.values(), key=lambda one: one.value)
        chosen = most if strength.value is None else strength.errors[strength.value]
        counts = ["–" if none else str(len(of[name][JOINT])) for of in (found.successful, found.failed)]
        setting = "left out: not within its range" if none else strength.setting
        rows.append([name, setting, f"{chosen.value:.3f} (n={chosen.n})", *counts])
    return table(("transformation, with the end of its range", "setting", "errors in the search", "SCC", "FCC"), rows)


def _sensitivity(areas: Mapping[str, Mapping[str, Mapping[str, Interval]]]) -> str:
    names = [*(f"joint, nu {nu:g}" for nu in NUS), "joint, calibrated"]
    return table(("validator", *areas), [[name, *(show(a[name]["overall"]) for a in areas.values())] for name in names])


def _together(cases: Mapping[str, Scores], name: str) -> np.ndarray:
    return np.concatenate([np.empty(0), *(scores[name] for scores in cases.values())])


def _short(name: str) -> str:
    return "+".join(word.partition("_")[0] for word in name.split("+"))


def as_note(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a published table as a note."""
    return f"**{title}**\n\n" + table(columns, [[str(cell) for cell in row] for row in rows])
