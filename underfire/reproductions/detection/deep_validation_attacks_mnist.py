"""Detect adversarial examples of MNIST by Deep Validation, feature squeezing and kernel density (Wu et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from underfire.measures.detection import auroc
from underfire.measures.detection_over_attacks import OverAttacks, over_attacks
from underfire.measures.statistics import rate
from underfire.records import Interval
from underfire.reproductions.detection import deep_validation_mnist
from underfire.reproductions.detection.attacks import Attack, attacked, correct
from underfire.reproductions.detection.corner_case_detectors import JOINT, SQUEEZING, Scores, score_columns
from underfire.reproductions.detection.page import NAMES, SOURCE, show
from underfire.reproductions.registry import Outcome, Setting, table

_CW = {"confidence": 10.0, "steps": 1000}
ATTACKS = {
    "FGSM": Attack("fgsm", {"eps": 0.3}),
    "BIM": Attack("bim", {"eps": 0.3, "step_size": 0.06, "steps": 10}),
    "CW∞, next": Attack("carlini_wagner", {**_CW, "norm": "linf"}, "next"),
    "CW∞, LL": Attack("carlini_wagner", {**_CW, "norm": "linf"}, "least likely"),
    "CW2, next": Attack("carlini_wagner", {**_CW, "norm": "l2"}, "next"),
    "CW2, LL": Attack("carlini_wagner", {**_CW, "norm": "l2"}, "least likely"),
    "CW0, next": Attack("carlini_wagner", {**_CW, "norm": "l0"}, "next"),
    "CW0, LL": Attack("carlini_wagner", {**_CW, "norm": "l0"}, "least likely"),
    "JSMA, next": Attack("jsma", {"share": 0.1}, "next"),
    "JSMA, LL": Attack("jsma", {"share": 0.1}, "least likely"),
}
"""The attacks of the table, with the settings of the paper on feature squeezing, whose attacks these are."""

IMAGES = {"quick": 2, "default": 100, "full": 200}
SUCCESS = (0.43, 0.91, 1, 1, 1, 1, 1, 1, 0.665, 0.515)
"""The shares of successes in the paper, by attack."""
PUBLISHED: dict[str, dict[str, tuple[float, ...]]] = {
    "SAE": {
        JOINT: (1, 1, 0.9992, 0.9965, 0.9347, 0.9758, 0.9329, 0.9651, 0.9851, 0.9944, 0.9755),
        SQUEEZING: (0.9970, 0.9972, 1, 1, 0.9993, 0.9996, 0.9920, 0.9920, 0.9973, 0.9972, 0.9971),
    },
    "AE": {
        JOINT: (1, 1, 0.9992, 0.9965, 0.9347, 0.9758, 0.9329, 0.9651, 0.9282, 0.8399, 0.9572),
        SQUEEZING: (0.9441, 0.9691, 1, 1, 0.9993, 0.9996, 0.9920, 0.9920, 0.8169, 0.6870, 0.9400),
    },
}
"""The ROC-AUC of the paper, by attack and overall."""

_LABELS = NAMES | {"joint, calibrated": "Deep Validation, calibrated"}

_HOW = """Each cell is the ROC-AUC with its 95 % DeLong interval; the positive class is the adversarial examples, and
the negatives are {clean} clean test images, which are not those that are attacked. SAE are successful adversarial
examples, which reach their goal, or without a goal another class; AE are all of them. LL is the class that the model
finds least likely, *next* the class after the label. *Overall* puts the examples of all attacks together. {attacked}
images are attacked, all of them classified correctly. The attacks have the settings of the paper on feature squeezing,
because the slides state none; the number of steps of BIM is ours. An attack of CW or JSMA that fails returns the clean
image here, which no detector can tell from a clean one; the paper's may return an image that it has changed, so AE of
JSMA compare only roughly."""


def run(setting: Setting) -> Outcome:
    """Attack digits, score them with the detectors of `deep-validation-mnist`, and compare the figures."""
    study, n = deep_validation_mnist.STUDY, IMAGES[setting.scale]
    model = study.network(setting)
    detectors, store = study.detectors(setting, model), study.store(setting, model)
    clean = study.clean_scores(setting, model, detectors)
    batch = correct(model, study.test_images(setting)[1], n)
    success: dict[str, Any] = {}
    scores: dict[str, Scores] = {}
    for label, attack in ATTACKS.items():
        name = f"{label}, {len(batch)} images"
        found = attacked(attack, model, batch, name, store, setting.progress)
        columns = store.tensors(f"{name}, scores", lambda x=found.x: score_columns(model, detectors, x))  # type: ignore[misc]
        scores[label] = {key: column.numpy() for key, column in columns.items()}
        success[label] = found.success.cpu().numpy()
    return outcome(setting, clean, scores, success)


def outcome(
    setting: Setting, clean: Scores, scores: Mapping[str, Scores], success: Mapping[str, np.ndarray]
) -> Outcome:
    """Return the outcome, from the scores of every detector and the successes of every attack."""
    kinds = {
        "SAE": {label: {key: values[success[label]] for key, values in of.items()} for label, of in scores.items()},
        "AE": dict(scores),
    }
    areas = {kind: {name: _areas(clean[name], found, name) for name in _LABELS} for kind, found in kinds.items()}
    over = {name: over_attacks(clean[name], {a: of[name] for a, of in kinds["SAE"].items()}) for name in _LABELS}
    shares = {label: rate(hits) for label, hits in success.items()}
    columns = ("detector", *scores, "overall")
    study = deep_validation_mnist.STUDY
    attacked_images = len(next(iter(success.values())))
    claims = [["claim", "verdict", "figures"], *_claims(areas)]
    return Outcome(
        title="Deep Validation on adversarial examples of MNIST",
        source=SOURCE,
        spec={
            **study.spec(setting),
            "attacks": {label: attack.spec() for label, attack in ATTACKS.items()},
            "attacked": attacked_images,
        },
        columns=columns,
        rows=[
            ["success", *(f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]" for share in shares.values()), ""],
            ["success, paper", *(f"{share:g}" for share in SUCCESS), ""],
            *_rows(areas["SAE"], "SAE"),
        ],
        notes=[
            "The table has successful adversarial examples (SAE). "
            + _HOW.format(clean=len(clean[JOINT]), attacked=attacked_images),
            "**What was published**\n\n" + table(claims[0], claims[1:]),
            "**All adversarial examples (AE)**\n\n" + table(columns, _rows(areas["AE"], "AE")),
            "**The worst attack**, with an interval that holds for the lowest of all, beside the mean (SAE)\n\n"
            + table(("detector", "worst attack", "its ROC-AUC", "mean"), _worst(over)),
            "These attacks do not know the detectors; those of `underfire reproduce detectors-adaptive-mnist` do.",
        ],
        results={"success": shares, "areas": areas, "over": over},
    )


def _areas(clean: np.ndarray, scores: Mapping[str, Scores], name: str) -> dict[str, Interval]:
    """Return the ROC-AUC of a detector for every attack and overall."""
    each = {label: auroc(clean, of[name]) for label, of in scores.items()}
    return {**each, "overall": auroc(clean, np.concatenate([of[name] for of in scores.values()]))}


def _rows(areas: Mapping[str, Mapping[str, Interval]], kind: str) -> list[list[str]]:
    """Return a row for each detector, with the published one below it."""
    rows = []
    for name, label in _LABELS.items():
        rows.append([label, *(show(area) for area in areas[name].values())])
        if name in PUBLISHED[kind]:
            rows.append([f"{label}, paper", *(f"{value:.4f}" for value in PUBLISHED[kind][name])])
    return rows


def _claims(areas: Mapping[str, Mapping[str, Mapping[str, Interval]]]) -> list[list[str]]:
    """Return what the paper found overall, whether it holds here, and the figures."""
    first, second = ({kind: areas[kind][name]["overall"] for kind in areas} for name in (JOINT, SQUEEZING))
    found = [
        ("squeezing above Deep Validation on successful examples", second["SAE"], first["SAE"]),
        ("Deep Validation above squeezing on all examples", first["AE"], second["AE"]),
    ]
    return [
        [claim, f"**{'holds' if one.value > other.value else 'does not hold'}**", f"{show(one)} against {show(other)}"]
        for claim, one, other in found
    ]


def _worst(over: Mapping[str, OverAttacks]) -> list[list[str]]:
    return [[_LABELS[name], one.worst, show(one.least), show(one.mean)] for name, one in over.items()]
