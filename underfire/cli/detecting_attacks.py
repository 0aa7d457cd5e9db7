"""Do the work of `underfire detect evaluate`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underfire.cli.detecting import (
    Setting,
    attacked_images,
    new_file,
    open_guard,
    read_attack,
    scores_of,
    write_rows,
)
from underfire.cli.detecting_tables import print_differences, print_figures
from underfire.cli.shared import print_json
from underfire.errors import DataError, InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from underfire.audit.schema import AttackSpec
    from underfire.detectors import Guard
    from underfire.records import Batch, Interval

_RATES = (0.01, 0.05, 0.1)


@dataclass(frozen=True)
class _Attacked:
    """The images after one attack of one size.

    Attributes:
        label: the attack with its size.
        x: the images; one that the attack changed by more than its size is the clean one.
        success: which of them the model classifies as the attack wants, bool `[n]`.
        counted: which of them count: those whose label is not already the class that the attack wants, bool `[n]`.
        entry: the attack.
        eps: its size.
    """

    label: str
    x: Tensor
    success: np.ndarray
    counted: np.ndarray
    entry: AttackSpec
    eps: float


def evaluate(
    setting: Setting,
    files: tuple[Path, ...],
    data_uri: str,
    n: int | None,
    attacks: tuple[str, ...],
    aware: bool,
    out: Path | None,
    force: bool,
) -> None:
    """Attack the test images that the model gets right, score them with every detector, and print the figures.

    With `aware`, also attack the guard of every detector, by the attacks that can have a goal.

    Raises:
        InputError: a file is none of a guard, two files have one name, an attack is wrong, or `out` exists. DataError:
            no image is left to test on.
    """
    from underfire.detectors.calibration import image_marks, unseen

    new_file(out, force, (".csv", ".parquet"))
    entries = [read_attack(text) for text in attacks]
    guards = {file.stem: open_guard(setting, file) for file in files}
    if len(guards) < len(files):
        raise InputError(f"the files must have different names, got {', '.join(map(str, files))}")
    # keep the images that no detector has seen and that the model gets right
    batch = setting.read(data_uri, n)
    seen = frozenset().union(*(guard.calibration.seen for guard in guards.values() if guard.calibration))
    batch, used = unseen(batch, image_marks(batch.x), seen)
    if used:
        setting.say(f"{used} images are left out, because a detector was fitted to them or calibrated on them")
    if not len(batch):
        raise DataError(f"all {used} images were used to fit or to calibrate; evaluate on other ones")
    right = (setting.model.predict(batch.x).argmax(1) == batch.y).nonzero().squeeze(1)
    if not len(right):
        raise DataError(f"the model gets all {len(batch)} images wrong, so that none can be attacked")
    batch = batch.take(right.cpu())
    # attack
    attacked = []
    for entry in entries:
        for eps in entry.eps:
            attacked.append(_attacked(setting, entry, eps, batch))
    if len({one.label for one in attacked}) < len(attacked):
        raise InputError("two attacks have the same name and size; give each a label, as in {name: pgd, label: ...}")
    # score
    results, rows = dict[str, Any](), list[dict[str, Any]]()
    scores: dict[str, dict[str, np.ndarray]] = {}
    for name, guard in guards.items():
        clean = scores_of(setting, guard.detector.score, batch.x).numpy()
        found = {one.label: scores_of(setting, guard.detector.score, one.x).numpy() for one in attacked}
        evades = {one.label: _aware(setting, guard, one, batch, found[one.label]) for one in attacked if aware}
        results[name] = _figures(guard, clean, found, attacked, evades)
        scores[name] = {"": clean, **found}
        rows += _rows(name, guard, batch.ids, {"": clean, **found}, attacked)
    if out is not None:
        write_rows(rows, out)
        setting.say(f"written to {out}")
    differences = _differences(results, scores, attacked)
    if setting.as_json:
        compared = {"differences": differences} if differences else {}
        print_json({"images": len(batch), "left_out": used, "detectors": results, **compared})
    elif not setting.quiet:
        for name, result in results.items():
            print_figures(name, result)
        print_differences(differences)


def _attacked(setting: Setting, entry: AttackSpec, eps: float, batch: Batch, guard: Guard | None = None) -> _Attacked:
    """Attack the images, or a guard with them, and measure on the classifier alone which attacks succeeded."""
    import torch

    from underfire.audit.sizes import size
    from underfire.measures.outcome import attack_outcome
    from underfire.validate import per_sample

    x_adv, goal = attacked_images(setting, entry, eps, batch, guard)
    outcome = attack_outcome(
        setting.model.predict,
        batch.x,
        x_adv,
        batch.y,
        goal,
        norm=str(entry.norm),
        eps=eps,
        domain=setting.model.domain,
    )
    x_adv = torch.where(per_sample(outcome["within_eps"], x_adv), x_adv, batch.x)
    counted = torch.ones_like(batch.y, dtype=torch.bool) if goal is None else goal != batch.y
    success = outcome["success"] & counted
    title = f"{entry.title} {size(str(entry.norm), eps)}"
    return _Attacked(title, x_adv, success.cpu().numpy(), counted.cpu().numpy(), entry, eps)


def _aware(setting: Setting, guard: Guard, one: _Attacked, batch: Batch, scores: np.ndarray) -> Interval | None:
    """Return the share of images that an attacker who knows the detector gets accepted as a wrong class.

    They can run the attack on the guard itself, or the one that does not know it, whose images have these scores. It is
    None for an attack without a goal, and for one that needs a gradient which the detector does not have.
    """
    from underfire.audit.kinds.evade import can_know
    from underfire.measures.statistics import rate

    if not can_know(one.entry, guard.detector):
        return None
    known = _attacked(setting, one.entry, one.eps, batch, guard)
    flagged = guard.threshold.flags(scores_of(setting, guard.detector.score, known.x))
    evades = (known.success & ~flagged) | (one.success & ~guard.threshold.flags(scores))
    return rate(evades[one.counted])


def _figures(
    guard: Guard,
    clean: np.ndarray,
    found: Mapping[str, np.ndarray],
    attacked: list[_Attacked],
    aware: Mapping[str, Interval | None],
) -> dict[str, Any]:
    """Return the figures of one detector: for each attack, and for the worst one and the mean over the attacks."""
    from underfire.measures.detection import auroc, detection_rate
    from underfire.measures.detection_over_attacks import over_attacks
    from underfire.measures.roc import average_precision, fpr_at, tpr_at
    from underfire.measures.statistics import rate

    each: dict[str, Any] = {}
    for one in attacked:
        label, scores = one.label, found[one.label]
        hits = scores[one.success]
        each[label] = {
            "successful": len(hits),
            "auroc": auroc(clean, hits),
            "auroc_of_all": auroc(clean, scores[one.counted]),
            "detected": detection_rate(hits, guard.threshold),
            "evades": rate((one.success & ~guard.threshold.flags(scores))[one.counted]),
            "evades_aware": aware.get(label),
            "tpr_at": {f"{at:g}": _or_none(tpr_at, clean, hits, at) for at in _RATES},
            "fpr95": _or_none(fpr_at, clean, hits),
            "average_precision": average_precision(clean, hits),
            "average_precision_of_clean": average_precision(clean, hits, "clean"),
        }
    known = {one.label: found[one.label][one.success] for one in attacked if one.success.any()}
    over = over_attacks(clean, known) if known else None
    return {
        "detector": guard.detector.name,
        "threshold": guard.threshold.value,
        "expected_false_positive_rate": guard.threshold.rate,
        "false_positive_rate": detection_rate(clean, guard.threshold),
        "attacks": each,
        "worst": over and {"attack": over.worst, "auroc": over.least},
        "mean_auroc": over and over.mean,
    }


def _or_none(figure: Any, *arguments: Any) -> Interval | None:
    """Return a figure, or None where the inputs cannot tell so fine a rate."""
    try:
        found: Interval = figure(*arguments)
    except DataError:
        return None
    return None if math.isnan(found.value) else found


def _rows(
    name: str, guard: Guard, ids: tuple[str, ...], scores: Mapping[str, np.ndarray], attacked: list[_Attacked]
) -> list[dict[str, Any]]:
    """Return one row for each image and attack, and for each clean image with an empty attack."""
    success = {one.label: one.success.tolist() for one in attacked} | {"": [False] * len(ids)}
    assert guard.calibration is not None
    rows = []
    for label, values in scores.items():
        columns = zip(ids, success[label], values.tolist(), guard.calibration.p_values(values).tolist(), strict=True)
        rows += [
            {"detector": name, "attack": label, "id": image, "success": hit, "score": value, "p_value": p}
            for image, hit, value, p in columns
        ]
    return rows


def _differences(
    results: Mapping[str, Any], scores: Mapping[str, Mapping[str, np.ndarray]], attacked: list[_Attacked]
) -> list[dict[str, Any]]:
    """Return by how much the AUROC of the best detector exceeds that of each other one, for every attack, paired.

    The best one has the highest AUROC of its worst attack. The list is empty for one detector, or if no attack
    succeeded.
    """
    from underfire.measures.detection import auroc_difference

    known = {name: result["worst"]["auroc"].value for name, result in results.items() if result["worst"]}
    if len(known) < 2:
        return []
    best, rows = max(known, key=lambda name: known[name]), list[dict[str, Any]]()
    for other in (name for name in known if name != best):
        first, second = scores[best], scores[other]
        for one in attacked:
            if one.success.any():
                hits = first[one.label][one.success], second[one.label][one.success]
                found = auroc_difference((first[""], second[""]), hits)
                rows.append({"detector": best, "other": other, "attack": one.label, "difference": found})
    return rows
