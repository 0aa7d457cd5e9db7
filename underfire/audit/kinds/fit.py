"""`fit`: a detector, fitted to one half of the held-out clean images, and its scores of the other half.

The threshold is chosen from these scores when the results are read, so that another false-positive rate computes
nothing again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from underfire.audit.graph import Cell
from underfire.audit.methods import detector_of
from underfire.audit.named_files import with_files
from underfire.audit.result import Inputs, Result, columns
from underfire.audit.schema import AuditSpec, DetectorSpec
from underfire.audit.target import Target
from underfire.errors import ModelError

schema = columns("id:s score:f")
about = columns("detector:s")

NOT_FITTED = {"label", "aware"}
"""The keys of an entry that do not affect the fit."""


def cells(spec: AuditSpec, target: Target, before: Sequence[Cell]) -> Iterator[Cell]:
    """Yield one cell for every detector.

    It needs the first clean cell only because the key of that cell depends on the model.
    """
    for entry in spec.detectors:
        batch, digest = target.held_out
        options = with_files({"detector": entry.model_dump(exclude=NOT_FITTED), "held_out": digest}, entry)
        description = {"title": f"{entry.title}, fitted", "detector": entry.title}
        yield Cell("fit", options, {"clean": before[0]}, description, images=len(batch))


def compute(cell: Cell, inputs: Inputs) -> Result:
    """Return the fitted detector as the bytes of its file, and the scores of the images that it was not fitted to.

    The scores are rows and an array.
    """
    entry, target = DetectorSpec.model_validate(cell.options["detector"]), inputs.target
    learn, choose = (half.to(inputs.device) for half in target.held_out_halves)
    result = Result()
    detector = detector_of(entry).fit(target.model, learn)
    found = scores(detector, choose.x, inputs)
    result.add(len(choose), id=list(choose.ids), score=found)
    result.arrays["score"] = found
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
