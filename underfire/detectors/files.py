"""Files of fitted detectors: safetensors, with the options and the facts of the fit as JSON in the metadata."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any

from torch import Tensor

from underfire.catalog import find
from underfire.detectors.detector import Detector, Fit
from underfire.errors import InputError, UnderfireError, shown
from underfire.files import as_path
from underfire.hooks import Probe
from underfire.learning import read_tensors, write_tensors

#: The version of the format; a file of another version is refused.
VERSION = "3"


def save(detector: Detector, path: str | os.PathLike[str]) -> None:
    """Write a fitted detector, see `Detector.save`."""
    write_tensors(as_path(path), *contents(detector))


def contents(detector: Detector) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the facts of the file of a fitted detector."""
    about = detector.fitted()
    try:
        facts = {
            "detector": detector.name,
            "version": VERSION,
            "options": json.dumps(detector.options),
            "fit": json.dumps(asdict(about)),
            "tensors": json.dumps(sorted(detector.learned or {})),
        }
    except TypeError:
        raise InputError(f"{detector.name} with a function among its options cannot be saved; use names") from None
    return detector.learned or {}, facts


def load(path: str | os.PathLike[str]) -> Detector:
    """Read a fitted detector from a file that `save` wrote; the file is not unpickled.

    Raises:
        InputError: there is no such file, or it is damaged, of another version, or of a detector that the catalogue
            does not have.
    """
    tensors, facts = read_tensors(as_path(path))
    try:
        card = find("detector", facts["detector"])
        if facts.get("version") != VERSION:
            written = shown(facts.get("version", "1"))
            raise InputError(f"its format has version {written}, and {VERSION!r} is needed; fit the detector again")
        if missing := sorted(set(json.loads(facts["tensors"])) - tensors.keys()):
            raise InputError(f"it lacks {len(missing)} of its tensors, such as {shown(missing[0])}")
        detector: Any = card.with_options(**card.check(json.loads(facts["options"])))
        detector.learned, detector.about = tensors, _fit(json.loads(facts["fit"]))
    except KeyError as error:
        raise InputError(
            f"{str(path)!r} is not a file of a detector: its metadata has no {shown(error.args[0])}"
        ) from None
    except (ValueError, TypeError, UnderfireError) as error:
        raise InputError(f"{str(path)!r} cannot be read as a detector: {error}".splitlines()[0]) from None
    if not isinstance(detector, Detector):
        raise InputError(f"{str(path)!r}: {facts['detector']} cannot be loaded from a file")
    return detector


def _fit(values: dict[str, Any]) -> Fit:
    """Return the facts of a fit from their JSON."""
    probes = tuple(Probe(*probe) for probe in values.pop("probes"))
    return Fit(**{**values, "shape": tuple(values.pop("shape"))}, probes=probes)
