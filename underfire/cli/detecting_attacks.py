"""Do the work of `underfire detect evaluate`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from underfire.cli.detecting import (
    Setting,
    attacked_images,
    new_file,
    open_guard,
    read_attack,
    scores_of,
    write_rows,
)
from underfire.cli.shared import OUT, print_json
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
        x: the images.
        success: which of them the model gets wrong, bool `[n]`.
        entry: the attack.
        eps: its size.
    """

    label: str
    x: Tensor
    success: Tensor
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
            x_adv = attacked_images(setting, entry, eps, batch)
            success = setting.model.predict(x_adv).argmax(1) != batch.y
            attacked.append(_Attacked(f"{entry.title} {eps:.4g}", x_adv, success.cpu(), entry, eps))
    if len({one.label for one in attacked}) < len(attacked):
        raise InputError("two attacks have the same name and size; give each a label, as in {name: pgd, label: ...}")
    # score
    results, rows = {}, []
    for name, guard in guards.items():
        clean = scores_of(setting, guard.detector.score, batch.x).numpy()
        found = {one.label: scores_of(setting, guard.detector.score, one.x).numpy() for one in attacked}
        evades = {one.label: _aware(setting, guard, one, batch) for one in attacked if aware}
        results[name] = _figures(guard, clean, found, {one.label: one.success.numpy() for one in attacked}, evades)
        rows += _rows(name, guard, batch.ids, {"": clean, **found}, attacked)
    if out is not None:
        write_rows(rows, out)
        setting.say(f"written to {out}")
    if setting.as_json:
        print_json({"images": len(batch), "left_out": used, "detectors": results})
    elif not setting.quiet:
        for name, result in results.items():
            _show(name, result)


def _aware(setting: Setting, guard: Guard, one: _Attacked, batch: Batch) -> Interval | None:
    """Return the share of images that an attack on the guard itself gets accepted as a wrong class.

    It is None for an attack without a goal, and for one that needs a gradient which the detector does not have.
    """
    from underfire.catalog import card_of
    from underfire.detectors.guard import REFUSED
    from underfire.measures.statistics import rate

    facts, detector = one.entry.card.facts, card_of(type(guard.detector))
    differentiable = detector is not None and detector.facts.differentiable
    if "targeted" not in facts.goals or not (differentiable or facts.knowledge == "black-box"):
        return None
    decided = guard.decide(attacked_images(setting, one.entry, one.eps, batch, guard))
    return rate(((decided != REFUSED) & (decided != batch.y)).cpu())


def _figures(
    guard: Guard,
    clean: np.ndarray,
    found: Mapping[str, np.ndarray],
    success: Mapping[str, np.ndarray],
    aware: Mapping[str, Interval | None],
) -> dict[str, Any]:
    """Return the figures of one detector: for each attack, and for the worst one and the mean over the attacks."""
    from underfire.measures.detection import auroc, detection_rate
    from underfire.measures.detection_over_attacks import over_attacks
    from underfire.measures.roc import average_precision, fpr_at, tpr_at
    from underfire.measures.statistics import rate

    each: dict[str, Any] = {}
    for label, scores in found.items():
        hits = scores[success[label]]
        each[label] = {
            "successful": len(hits),
            "auroc": auroc(clean, hits),
            "auroc_of_all": auroc(clean, scores),
            "detected": detection_rate(hits, guard.threshold),
            "evades": rate(success[label] & ~guard.threshold.flags(scores)),
            "evades_aware": aware.get(label),
            "tpr_at": {f"{at:g}": _or_none(tpr_at, clean, hits, at) for at in _RATES},
            "fpr95": _or_none(fpr_at, clean, hits),
            "average_precision": average_precision(clean, hits),
            "average_precision_of_clean": average_precision(clean, hits, "clean"),
        }
    known = {label: scores[success[label]] for label, scores in found.items() if success[label].any()}
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


def _show(name: str, result: Mapping[str, Any]) -> None:
    """Print the figures of one detector as a table."""
    stated, measured = result["expected_false_positive_rate"], result["false_positive_rate"]
    OUT.print(f"{name}: expected false-positive rate {stated}, measured {measured}")
    known = any(found["evades_aware"] for found in result["attacks"].values())
    more = ("evades", "aware") if known else ("evades",)
    head = ("attack", "n", "AUROC", "of all", "detected", "at 1/5/10 %", *more)
    table = Table(*head, box=None, header_style="dim", pad_edge=False)
    for label, found in result["attacks"].items():
        shares = ["–" if i is None else f"{i.value:.2f}" for i in found["tpr_at"].values()]
        figures = [*map(_cell, (found["auroc"], found["auroc_of_all"], found["detected"])), " / ".join(shares)]
        figures += map(_cell, [found["evades"], found["evades_aware"]][: len(more)])
        worst = result["worst"] and label == result["worst"]["attack"]
        table.add_row(f"{label} (worst)" if worst else label, str(found["successful"]), *figures)
    OUT.print(table)
    if result["worst"]:
        OUT.print(f"worst attack: AUROC {result['worst']['auroc']}; mean over the attacks: {result['mean_auroc']}\n")


def _cell(i: Interval | None) -> str:
    return "–" if i is None or math.isnan(i.value) else f"{i.value:.3f}\n{i.low:.2f}–{i.high:.2f}"
