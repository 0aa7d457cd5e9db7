"""`fit`: a detector, fitted to one half of the held-out clean images, and its scores of the other half.

The threshold is chosen from these scores when the results are read, so that another false-positive rate does not fit
again. A supervised detector also learns from the first half after attacks of the spec; it is fitted to all of them, and
once without each of them, which shows how well it sees an attack that it has not learned from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from underfire.audit.fitted_files import opened
from underfire.audit.graph import Cell
from underfire.audit.kinds.fit_attack import joined
from underfire.audit.methods import detector_of
from underfire.audit.named_files import with_files
from underfire.audit.result import Inputs, Result, columns
from underfire.audit.schema import AuditSpec, DetectorSpec
from underfire.audit.target import Target
from underfire.audit.values import file_digests
from underfire.errors import DataError, ModelError, Unsupported

schema = columns("id:s score:f")
about = columns("detector:s left_out:s learned:l")

NOT_FITTED = {"label", "aware", "learns_from"}
"""The keys of an entry that do not affect the fit, or affect it by the cells that it needs."""


def cells(spec: AuditSpec, target: Target, before: Sequence[Cell]) -> Iterator[Cell]:
    """Yield a cell for every detector, and for a supervised one further cells without each of its attacks.

    They need the first clean cell only because the key of that cell depends on the model.
    """
    for entry in spec.detectors:
        if entry.file:
            options = {"detector": entry.model_dump(exclude=NOT_FITTED), "files": file_digests([entry.file])}
            description = {
                "title": f"{entry.title}, from its file",
                "detector": entry.title,
                "left_out": "",
                "learned": [],
            }
            yield Cell("fit", options, {"clean": before[0]}, description, images=1)
            continue
        batch, digest = target.held_out
        options = with_files({"detector": entry.model_dump(exclude=NOT_FITTED | {"file"}), "held_out": digest}, entry)
        labels = entry.learns_from or []
        for left_out in ["", *(labels if len(labels) > 1 else [])]:
            learned = [label for label in labels if label != left_out]
            attacks = [cell for cell in before if cell.kind == "fit_attack" and cell.about["label"] in learned]
            needs = {"clean": before[0], **{f"attack {i}": cell for i, cell in enumerate(attacks)}}
            title = f"{entry.title}, fitted" + (f" without {left_out}" if left_out else "")
            description = {"title": title, "detector": entry.title, "left_out": left_out, "learned": learned}
            images = len(batch) + sum(cell.images for cell in attacks)
            yield Cell("fit", options, needs, description, images=images)


def compute(cell: Cell, inputs: Inputs) -> Result:
    """Return the fitted detector as the bytes of its file, and the scores of the images that it was not fitted to.

    The scores are rows and an array.
    """
    entry, target = DetectorSpec.model_validate(cell.options["detector"]), inputs.target
    if entry.file:
        return _stored(entry, target)
    learn, choose = (half.to(inputs.device) for half in target.held_out_halves)
    attacked = joined([need for role, need in cell.needs.items() if role != "clean"], inputs)
    try:
        detector = detector_of(entry).fit(target.model, learn, attacked)
    except DataError as error:
        if attacked is None:
            raise
        raise Unsupported(str(error)) from None  # no attack has succeeded, so that there is nothing to learn
    found = scores(detector, choose.x, inputs)
    return _kept(detector, choose.ids, found)


def _stored(entry: DetectorSpec, target: Target) -> Result:
    """Return a detector that is fitted already, with the scores of the images that its threshold was chosen from."""
    detector, calibration = opened(entry, target)
    names = [f"calibration {number}" for number in range(len(calibration.scores))]
    return _kept(detector, names, torch.tensor(calibration.scores, dtype=torch.float64))


def _kept(detector: Any, names: Sequence[str], held: Tensor) -> Result:
    """Return a detector as the bytes of its file, with the scores of the images that a threshold is chosen from."""
    result = Result()
    result.add(len(names), id=list(names), score=held)
    result.arrays["score"] = held
    with TemporaryDirectory() as folder:
        path = Path(folder) / "detector"
        detector.save(path)
        result.arrays["file"] = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
    return result


def views(spec: AuditSpec) -> dict[str, str]:
    """Return no table: the table `clean_scores` has these scores too."""
    return {}


# --- functions for the cells that need a fit cell --------------------------------------------------------------------


def fitted(cell: Cell, inputs: Inputs) -> Any:
    """Return the detector of a fit cell."""
    entry = DetectorSpec.model_validate(cell.options["detector"])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "detector"
        path.write_bytes(inputs.arrays(cell)["file"].cpu().numpy().tobytes())
        return entry.card.function.load(path)  # type: ignore[attr-defined]


def scores(detector: Any, x: Tensor, inputs: Inputs) -> Tensor:
    """Return the scores of images, `[B]`; raise ModelError if one is not finite."""
    target = inputs.target
    with torch.no_grad():
        found = torch.cat([detector.score(target.model, part) for part in x.split(target.spec.batch_size)])
    if not bool(torch.isfinite(found).all()):
        raise ModelError(f"the detector's score is not finite for {int((~found.isfinite()).sum())} images")
    return found
