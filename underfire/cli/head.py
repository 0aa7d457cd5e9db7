"""`underfire train linear_head`: fit a new head to a frozen network, and write the network."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

from underfire.cli.progress import progress
from underfire.cli.shared import OUT, open_model, print_json
from underfire.errors import InputError
from underfire.files import atomic_write

CLASSES = "classes.json"


def train_head(
    model_uri: str,
    data_uri: str,
    out: Path,
    settings: tuple[str, ...],
    n: int | None,
    seed: int,
    place: str | None,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Fit a linear head, write the weights of the network to `out` and the class names beside it.

    Raises:
        InputError: a setting is not `folds=N`, the file is no `.safetensors`, or it or other class names exist.
    """
    from safetensors.torch import save

    from underfire import data
    from underfire.training import linear_head

    folds = _folds(settings)
    if out.suffix != ".safetensors":
        raise InputError(f"--out must be a .safetensors file, got {str(out)!r}")
    names = out.parent / CLASSES
    for file in (out, names):
        if file.exists() and not force:
            raise InputError(f"{file} exists already; pass --force to overwrite, or a path in another folder")
    model, images = open_model(model_uri, None, place), data.load(data_uri, n=n, seed=seed)
    with ExitStack() as stack:
        show = stack.enter_context(progress("read features", len(images), unit="images", quiet=quiet))
        head = linear_head(model, images, folds=folds, seed=seed, progress=lambda done, total: show(done))
    state = {name: value.contiguous() for name, value in head.classifier.module.state_dict().items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as part:
        part.write_bytes(save(state))
    if images.labels:
        with atomic_write(names) as part:
            part.write_text(json.dumps(list(images.labels), ensure_ascii=False) + "\n", encoding="utf-8")
    found = {
        "file": str(out),
        "images": len(images),
        "cross-validated accuracy": str(head.accuracy),
        "balanced accuracy": round(head.balanced_accuracy, 4),
        "share of the largest class": round(head.majority, 4),
    }
    if as_json:
        print_json(found)
    elif not quiet:
        for key, value in found.items():
            OUT.print(f"{key}: {value}")


def _folds(settings: tuple[str, ...]) -> int:
    """Return the number of folds among the settings, which have no other."""
    folds = 5
    for setting in settings:
        name, _, value = setting.partition("=")
        if name.strip() != "folds" or not value.strip().isdecimal() or int(value) < 2:
            raise InputError(f"linear_head has the option folds=N with N of at least 2, got {setting!r}")
        folds = int(value)
    return folds
