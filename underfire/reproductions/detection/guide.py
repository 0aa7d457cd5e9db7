"""Write the tables of the page that says which detector to use when, from the results of the experiments."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from underfire.records import Interval
from underfire.reproductions.detection.corner_case_detectors import DENSITY, JOINT, SQUEEZING
from underfire.reproductions.registry import table

ADAPTIVE = {"MNIST": "detectors-adaptive-mnist", "CIFAR-10": "detectors-adaptive-cifar10"}
"""The experiments with attackers who know the detector, by data set."""
_MISSING, _NONE = "not measured yet", "–"
_OWN_NAMES = {"Deep Validation": JOINT, "feature squeezing": SQUEEZING, "kernel density": DENSITY}
_LEARNED = ("ML-LOO", "KD+BU", "LID", "Mahalanobis")
_CLEAN = (*_OWN_NAMES, "Mahalanobis", "two interpreters", "softmax", "energy")

Results = Mapping[str, Any]
"""The results of one experiment, from its JSON file."""


def aware_table(folder: Path) -> str:
    """Return the table of attackers who know the detector and of those who do not, for all detectors.

    Args:
        folder: the folder of the results, `docs/reproductions`.
    """
    found = {data: _results(folder, name) for data, name in ADAPTIVE.items()}
    labels = dict.fromkeys(label for results in found.values() for label in results or ())
    if not labels:
        return f"Attackers who know the detector: {_MISSING}."
    columns = [f"{data}, {who}" for who in ("knows it", "does not") for data in _linked(folder, found)]
    rows = []
    for label in labels:
        cells = []
        for who in ("aware", "unaware"):
            cells += [_cell(results, label, f"evades, {who}") for results in found.values()]
        rows.append([label, *cells])
    return table(("detector: share of the images that evade it", *columns), rows)


def unaware_table(folder: Path) -> str:
    """Return the table of ROC-AUC on corner cases, on attacks that do not know the detector, and on another clinic."""
    rows = []
    for label in dict.fromkeys((*_CLEAN, *_LEARNED)):
        cells = []
        for name, labels, read in _COLUMNS.values():
            results = _results(folder, name)
            cells.append(
                _NONE if label not in labels else _MISSING if results is None else _shown(read(results, label))
            )
        rows.append([label, *cells])
    heads = [_link(folder, column, name) for column, (name, *_) in _COLUMNS.items()]
    return table(("detector: ROC-AUC", *heads), rows)


def _overall(kind: str) -> Callable[[Results, str], Interval]:
    """Return a function that reads the ROC-AUC of a detector on all cases of a kind together."""
    return lambda results, label: Interval(**results["areas"][kind][_OWN_NAMES[label]]["overall"])


def _worst(lesson: str) -> Callable[[Results, str], Interval]:
    """Return a function that reads the lowest ROC-AUC of a detector over the attacks, each after its lesson."""

    def read(results: Results, label: str) -> Interval:
        own = results["areas"][label]
        attacks = [name for name in own if not name.startswith("not ")]
        return min((Interval(**own[lesson.format(name)][name]) for name in attacks), key=lambda area: area.value)

    return read


_COLUMNS: dict[str, tuple[str, tuple[str, ...], Callable[[Results, str], Interval]]] = {
    "corner cases, MNIST": ("deep-validation-mnist", tuple(_OWN_NAMES), _overall("SCC")),
    "corner cases, CIFAR-10": ("deep-validation-cifar10", tuple(_OWN_NAMES), _overall("SCC")),
    "ten attacks, MNIST": ("deep-validation-attacks-mnist", tuple(_OWN_NAMES), _overall("SAE")),
    "an attack that it learned from, CIFAR-10 (worst of three)": ("ml-loo-cifar10", _LEARNED, _worst("{}")),
    "an attack that it did not learn from (worst of three)": ("ml-loo-cifar10", _LEARNED, _worst("not {}")),
    "another clinic": (
        "detectors-skin-lesions",
        _CLEAN,
        lambda results, label: Interval(**results["areas"][label]["HAM10000, known diagnoses"]),
    ),
}
"""The experiment of each column, its detectors, and what reads the ROC-AUC of one from its results."""


def _results(folder: Path, name: str) -> Results | None:
    """Return the results of an experiment; None if its page is not there."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    results: Results = json.loads(path.read_text())["results"]
    return results


def _linked(folder: Path, found: Mapping[str, Results | None]) -> list[str]:
    return [_link(folder, data, ADAPTIVE[data]) for data in found]


def _link(folder: Path, words: str, name: str) -> str:
    """Return words that link to the page of an experiment, or the words alone if there is no page."""
    return f"[{words}](reproductions/{name}.md)" if (folder / f"{name}.md").is_file() else words


def _cell(results: Results | None, label: str, column: str) -> str:
    if results is None or label not in results:
        return _MISSING if results is None else _NONE
    return _shown(Interval(**results[label][column]))


def _shown(value: Interval) -> str:
    """Return a figure with its interval and n."""
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}] (n={value.n})"
