"""`underfire train`: fit an interpreter to data, write its weights, and evaluate it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underfire.catalog import Card, cards, find
from underfire.catalog.options import check_options
from underfire.cli.options import typed
from underfire.cli.progress import progress
from underfire.cli.shared import ERR, OUT, open_model, print_json
from underfire.errors import InputError, Unsupported

if TYPE_CHECKING:
    from underfire.data import Dataset
    from underfire.model import Classifier

_BATCH = 64  # test images in one batch
_LEARN = {
    "aid": ("rts", "distil")
}  # names of a training that is not the fit of an interpreter: the method that it calls


def train(
    name: str,
    model_uri: str,
    output: str | None,
    data_uri: str,
    out: Path,
    settings: tuple[str, ...],
    n: int | None,
    test_uri: str | None,
    seed: int,
    place: str | None,
    resume: bool,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Fit the interpreter `name` to a model and its data and save it to `out`; `aid` trains RTS on with ADV².

    The state of the training is stored in `OUT.checkpoint`; with `resume`, training continues from it.

    Raises:
        Unsupported: the interpreter is not trained. InputError: it has no such option; or `out` exists, or a checkpoint
            exists, and neither `resume` nor `force` is given.
    """
    import torch

    from underfire.audit.labels import open_data

    interpreter, verb = _LEARN.get(name, (name, "fit"))
    entry = find("interpreter", interpreter)
    if not trainable(entry):
        choices = ", ".join(card.name for card in cards("interpreter") if trainable(card))
        raise Unsupported(f"{name} is not trained; choices: {choices}, linear_head")
    made, fitted = _split(entry, verb, settings)
    if out.is_dir():
        raise InputError(f"--out must be a file, and {out} is a folder; use for example {out / f'{name}.safetensors'}")
    if out.exists() and not force:
        raise InputError(f"{out} exists already; pass --force to overwrite, or another path")
    checkpoint = out.with_name(f"{out.name}.checkpoint")
    if checkpoint.exists() and not (resume or force):
        left = f"{checkpoint} was left by an earlier training"
        raise InputError(f"{left}; pass --resume to continue it, --force to start again")
    if resume and not checkpoint.is_file() and not quiet:
        ERR.print(f"there is no {checkpoint} to resume from; training starts from the beginning")
    model = open_model(model_uri, output, place)
    entry.check_domain(model.domain.name)
    images = open_data(data_uri, model, n=n, seed=seed)
    test = open_data(test_uri, model) if test_uri else None
    if test is not None and n is not None and n < len(test):
        test = test.subset(n, seed)
    method = entry.with_options(**made)
    if not resume:
        checkpoint.unlink(missing_ok=True)  # only now, after all checks
    with ExitStack() as stack:
        show: Callable[[float], None] | None = None

        def tell(done: int, total: int) -> None:
            nonlocal show
            if show is None:
                bar = progress(f"train {name}", total, unit="passes", start=done, quiet=quiet)
                show = stack.enter_context(bar)
            show(done)

        kept = {"progress": tell, "checkpoint": checkpoint, "generator": torch.Generator().manual_seed(seed)}
        learn = getattr(method, verb)
        known = inspect.signature(learn).parameters
        learn(model, images, **fitted, **{k: v for k, v in kept.items() if k in known})
    method.save(out)  # type: ignore[attr-defined]
    checkpoint.unlink(missing_ok=True)
    found = {"file": str(out), "bytes": out.stat().st_size, "images": len(images)}
    if test is not None:
        found |= quality(method, model, test, seed)
    if as_json:
        print_json(found)
    elif not quiet:
        for key, value in found.items():
            OUT.print(f"{key}: {value:.4f}" if isinstance(value, float) else f"{key}: {value}")


def trainable(card: Card) -> bool:
    """Return whether a method is fitted to data and can be saved to a file."""
    return card.fitted and hasattr(card.function, "save")


def _split(card: Card, verb: str, settings: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split the settings into options of the method and options of its `fit`, or of another `verb` that trains it.

    Raises:
        InputError: a setting is unknown or has the wrong type.
    """
    fit = inspect.signature(getattr(card.function, verb)).parameters
    numbers = {name: p for name, p in fit.items() if isinstance(p.default, (bool, int, float))}
    hints = {name: type(p.default) for name, p in numbers.items()}
    given = typed(card, settings)
    fitted = check_options(card.name, numbers, hints, {k: v for k, v in given.items() if k in numbers})
    made = card.check({k: v for k, v in given.items() if k not in numbers}, elsewhere=numbers)
    return made, fitted


def quality(method: Any, model: Classifier, test: Dataset, seed: int) -> dict[str, float]:
    """Evaluate the maps of test images; return means over the images.

    The values are the mean of the map and, if the method has one, its loss. If the data has masks of the evidence, they
    are also how often the maximum of the map is inside the mask (the pointing game), the share of the map inside the
    mask, and the share of the image inside the mask, which is the expected value for a random map.
    """
    import torch

    from underfire.measures.localisation import mass_inside, pointing_game

    place = str(next(iter(model.buffers())).device)
    generator = torch.Generator().manual_seed(seed)
    columns: dict[str, list[Any]] = {}
    for batch in test.batches(_BATCH):
        batch = batch.to(place)
        values = {}
        with torch.no_grad():
            m = method(model, batch.x, batch.y)
            if hasattr(method, "loss"):
                values["held-out loss"] = method.loss(model, batch.x, batch.y, generator=generator)
        values["mean of the map"] = m.mean((1, 2, 3))
        if batch.mask is not None:
            values["pointing game"] = pointing_game(m, batch.mask)
            values["mass in evidence"] = mass_inside(m, batch.mask)
            values["chance"] = batch.mask.float().mean((1, 2, 3))
        for key, value in values.items():
            columns.setdefault(key, []).append(value.float())
    return {"test images": len(test), **{key: float(torch.cat(parts).nanmean()) for key, parts in columns.items()}}
