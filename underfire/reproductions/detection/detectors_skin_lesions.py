"""Score the photographs of another clinic, and corner cases, by detectors fitted to one clinic's skin lesions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from underfire import data, models
from underfire.attacks.corner_cases import synthesise
from underfire.catalog import find
from underfire.detectors import Detector, score_all
from underfire.learning import model_fingerprint
from underfire.measures.detection import auroc
from underfire.measures.roc import tpr_at
from underfire.measures.statistics import rate
from underfire.model import Classifier
from underfire.records import Batch, Interval
from underfire.reproductions.adv2.skin_lesions import FOLDER, NETWORK, classifier
from underfire.reproductions.detection.stored import Store
from underfire.reproductions.registry import Outcome, Setting, table

OTHER_CLINIC = "folder:{root}/skin_lesions/ham10000?size=224"
SAME = {"mel": "melanoma", "nv": "nevus", "bkl": "seborrheic_keratosis"}
"""The diagnoses of HAM10000 that the classifier knows, with its names for them; it does not know the other four."""

DETECTORS: dict[str, dict[str, Any]] = {
    "softmax": {"name": "softmax"},
    "energy": {"name": "energy"},
    "feature squeezing": {"name": "feature_squeezing", "squeezers": "imagenet"},
    "kernel density": {"name": "kernel_density"},
    "Mahalanobis": {"name": "mahalanobis"},
    "Deep Validation": {"name": "deep_validation"},
    "two interpreters": {"name": "ensemble_interpretation", "interpreters": ("gradient", "grad_cam")},
}
TRANSFORMATIONS = (
    *("rotation_180", "scale_0.5", "brightness_0.5", "brightness_-0.5", "contrast_3", "contrast_0.2"),
    *("noise", "blur", "fog", "jpeg"),
)
ERROR_RATE, STRENGTHS, RATE = 0.3, 5, 0.1
_CHUNK = 7  # photographs that are scored at once

_HOW = """Each cell is the ROC-AUC with its 95 % DeLong interval, and after it the share that is flagged at {rate:.0%}
false positives. The negatives are {clean} photographs of ISIC 2017; the detectors are fitted to the other {fit}, with
{least} to {most} of each diagnosis. The positive class is what the column names. The classifier is a linear head on a
frozen EfficientNet-lite0 that was fitted to all photographs of ISIC 2017, so it knows the negatives; only the layers
before the head do not. Its cross-validated accuracy is {accuracy}. Of the {n} photographs of HAM10000, {named} have a
diagnosis that it knows, and it gets {known} of them right; the other {rest} have one that it cannot name."""

_CASES = """**Corner cases of the clinic's own photographs.** SCC are transformed photographs that the classifier gets
wrong, FCC those that it still gets right. A transformation has the smallest of {strengths} strengths at which the
classifier errs on {error_rate:.0%} of the photographs that the detectors are fitted to; one that does not reach this
is left out. Rotation leaves black corners, which the lesion does not need and which a detector may see."""


Columns = dict[str, Tensor]
"""The scores of images by the label of the detector, `[n]` each."""


def run(setting: Setting) -> Outcome:
    """Fit the detectors to half of the photographs of one clinic, and score everything else."""
    uri, head = classifier(setting)
    model = models.load(uri, device=setting.device)
    own, other = (data.load(uri.format(root=setting.root)) for uri in (FOLDER, OTHER_CLINIC))
    fit, clean = _halves(own[:].to(setting.device), setting.seed)
    others, chosen = other[:].to(setting.device), DETECTORS
    wanted: tuple[str, ...] = TRANSFORMATIONS
    if setting.quick:
        clean, others = clean.take(torch.arange(0, len(clean), 8)), others.take(torch.arange(0, len(others), 9))
        chosen, wanted = {"softmax": DETECTORS["softmax"]}, TRANSFORMATIONS[4:5]
    facts = {"data": [FOLDER, OTHER_CLINIC], "model": model_fingerprint(model), "scale": setting.scale}
    store = Store.of(setting, "detectors-skin-lesions", facts)
    # fit, and score the photographs
    detectors: dict[str, Detector] = {}
    for number, (label, options) in enumerate(chosen.items()):
        setting.progress(number, len(chosen), f"fitting: {label}")
        detectors[label] = store.detector(label, partial(_fitted, options, model, fit))
    setting.progress(0, 1, "scoring the photographs")
    usual = store.tensors("clean", partial(_columns, model, detectors, clean.x))
    foreign = store.tensors("other clinic", partial(_columns, model, detectors, others.x))
    diagnoses = [SAME.get((other.labels or ())[y]) for y in others.y.tolist()]
    said = [(own.labels or ())[y] for y in model.predict(others.x).argmax(1).tolist()]
    known = torch.tensor([diagnosis is not None for diagnosis in diagnoses])
    right = torch.tensor([one == another for one, another in zip(diagnoses, said, strict=True)])
    groups = {
        name: {label: of[rows] for label, of in foreign.items()}
        for name, rows in (
            ("HAM10000, known diagnoses", known),
            ("of these, wrong", known & ~right),
            ("HAM10000, other diagnoses", ~known),
        )
    }
    # corner cases
    cases: dict[str, dict[str, Columns]] = {}
    for number, name in enumerate(wanted):
        setting.progress(number, len(wanted), f"corner cases: {name}")
        columns, words = store.record(name, partial(_corner_cases, model, detectors, clean, fit, name))
        cases[f"{name}: {words or 'left out'}"] = {
            kind: {label: columns[f"{kind}/{label}"] for label in detectors} for kind in ("SCC", "FCC")
        }
    for kind in ("SCC", "FCC"):
        groups[kind] = {label: torch.cat([of[kind][label] for of in cases.values()]) for label in detectors}
    counts = torch.bincount(fit.y)
    how = _HOW.format(
        rate=RATE,
        clean=len(clean),
        fit=len(fit),
        least=int(counts.min()),
        most=int(counts.max()),
        accuracy=head["accuracy"],
        n=len(others),
        named=int(known.sum()),
        rest=int((~known).sum()),
        known=rate(right[known]),
    )
    spec = {
        "model": f"{NETWORK} with a linear head",
        "own": FOLDER.format(root=setting.root),
        "other": OTHER_CLINIC.format(root=setting.root),
        "detectors": chosen,
        "transformations": wanted,
        "error_rate": ERROR_RATE,
        "strengths": STRENGTHS,
        "seed": setting.seed,
    }
    return outcome(spec, how, usual, groups, {name: of["SCC"] for name, of in cases.items()})


def outcome(
    spec: Mapping[str, Any],
    how: str,
    usual: Columns,
    groups: Mapping[str, Columns],
    cases: Mapping[str, Columns],
) -> Outcome:
    """Return the outcome, from the scores of clean photographs, of each group, and of the successful corner cases."""
    areas, single = (
        {label: {name: _area(usual[label], of[label]) for name, of in parts.items()} for label in usual}
        for parts in (groups, cases)
    )
    flagged = {label: {name: _flagged(usual[label], of[label]) for name, of in groups.items()} for label in usual}
    by_transformation = table(
        ("detector", *cases), [[label, *(_cell(area) for area in of.values())] for label, of in single.items()]
    )
    return Outcome(
        title="Skin lesions: detectors of one clinic on the photographs of another",
        source="none; the classifier is that of `adv2-skin-lesions`",
        spec=spec,
        columns=("detector", *(f"{name} (n={len(next(iter(of.values())))})" for name, of in groups.items())),
        rows=[[label, *(_cell(areas[label][name], flagged[label][name]) for name in groups)] for label in usual],
        notes=[
            how,
            _CASES.format(strengths=STRENGTHS, error_rate=ERROR_RATE),
            "**ROC-AUC on SCC, by transformation**\n\n" + by_transformation,
        ],
        results={"areas": areas, "flagged": flagged, "by transformation": single},
    )


def _halves(batch: Batch, seed: int) -> tuple[Batch, Batch]:
    """Return two halves of a batch, with every second image of each label, in random order."""
    order = torch.randperm(len(batch), generator=Generator().manual_seed(seed))
    order = order[batch.y.cpu()[order].sort(stable=True).indices]
    return batch.take(order[::2]), batch.take(order[1::2])


def _fitted(options: Mapping[str, Any], model: Classifier, fit: Batch) -> Detector:
    card = find("detector", str(options["name"]))
    detector: Any = card.with_options(**card.check({key: v for key, v in options.items() if key != "name"}))
    found: Detector = detector.fit(model, fit)
    return found


def _columns(model: Classifier, detectors: Mapping[str, Detector], x: Tensor) -> dict[str, Tensor]:
    """Return the scores of images by every detector, `[n]` each."""
    if not len(x):
        return {label: torch.zeros(0, dtype=torch.float64) for label in detectors}
    parts = []
    with torch.no_grad():
        for chunk in x.split(_CHUNK):
            parts.append(torch.stack(score_all(list(detectors.values()), model, chunk)).double().cpu())
    return dict(zip(detectors, torch.cat(parts, 1), strict=True))


def _corner_cases(
    model: Classifier, detectors: Mapping[str, Detector], clean: Batch, searched: Batch, name: str
) -> tuple[dict[str, Tensor], str]:
    """Return the scores of the corner cases of one transformation, and its setting in words."""
    (found,) = synthesise(
        model, clean, (name,), searched=searched, error_rate=ERROR_RATE, strengths=STRENGTHS, chunk=_CHUNK
    )
    both = {"SCC": found.successful.x, "FCC": found.failed.x}
    columns = {kind: _columns(model, detectors, x) for kind, x in both.items()}
    return {
        f"{kind}/{label}": of for kind, every in columns.items() for label, of in every.items()
    }, found.strength.setting


def _area(clean: Tensor, cases: Tensor) -> Interval:
    return auroc(clean.numpy(), cases.numpy())


def _flagged(clean: Tensor, cases: Tensor) -> Interval | None:
    """Return the share of images that are flagged at the false-positive rate; None if there are too few images."""
    if not len(cases) or (len(clean) + 1) * RATE < 1:
        return None
    return tpr_at(clean.numpy(), cases.numpy(), RATE)


def _cell(area: Interval, flagged: Interval | None = None) -> str:
    if np.isnan(area.value):
        return "–"
    share = "" if flagged is None else f"; {flagged.value:.2f}"
    return f"{area.value:.3f} [{area.low:.3f}, {area.high:.3f}]{share}"
