"""Entries of a spec that name the file of a fitted detector with its threshold, as `underfire detect fit` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from underfire.audit.schema import DetectorSpec, key_path
from underfire.detectors import Calibration, Detector, Guard, load
from underfire.detectors.calibration import image_marks
from underfire.errors import DataError, InputError, SpecError

if TYPE_CHECKING:
    from underfire.audit.target import Target
    from underfire.model import Classifier


def complete_file(entry: DetectorSpec, path: str) -> DetectorSpec:
    """Return an entry that names a file, with its default label.

    Args:
        entry: the detector.
        path: the key of the entry in the spec, for error messages.

    Raises:
        SpecError: the file cannot be read, holds another detector, or the entry has options.
    """
    place = key_path(path, "file")
    for key in (*entry.options, *(["learns_from"] if entry.learns_from is not None else [])):
        raise SpecError(f"{key_path(path, key)!r} has no meaning beside {place!r}, which is of a fitted detector")
    try:
        name = loaded(entry).name
    except InputError as error:
        raise SpecError(f"{place!r}: {error}") from None
    if name != entry.name:
        raise SpecError(f"{key_path(path, 'name')!r} is {entry.name!r}, and {entry.file!r} holds {name!r}")
    return DetectorSpec(name=entry.name, label=entry.title, aware=entry.aware, file=entry.file)


def loaded(entry: DetectorSpec) -> Detector:
    """Return the detector of the file of an entry; raise InputError if it cannot be read."""
    return load(str(entry.file))


def calibrated_guard(file: str | Path, model: Classifier) -> tuple[Guard, Calibration]:
    """Return the guard of a file for a model, and what it was calibrated on.

    Raises:
        InputError: the file cannot be read, or does not say what it was calibrated on. ModelError: it is of another
            model.
    """
    guard = Guard.load(file, model)
    if guard.calibration is None:
        raise InputError(
            f"{str(file)!r} does not say which images it was calibrated on; make it by underfire detect fit"
        )
    return guard, guard.calibration


def opened(entry: DetectorSpec, target: Target) -> tuple[Detector, Calibration]:
    """Return the detector of the file of an entry, and what it was calibrated on, checked against the target.

    Raises:
        InputError, ModelError: as `calibrated_guard`. DataError: the audit attacks images that it was fitted to or
            calibrated on.
    """
    guard, calibration = calibrated_guard(str(entry.file), target.model)
    marks = {mark for part in target.data.batches(64) for mark in image_marks(part.x)}
    if both := len(marks & calibration.seen):
        raise DataError(
            f"{entry.file!r} was fitted to or calibrated on {both} images that the audit attacks; choose others as "
            "'data', such as by another 'seed'"
        )
    return guard.detector, calibration
