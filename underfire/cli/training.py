"""`underfire train`: fit a method that learns from data, write what it learned, and say how good it is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underfire.catalog import Card, cards, find
from underfire.cli.options import typed
from underfire.cli.shared import ERR, OUT, device, print_json, progress
from underfire.errors import InputError, Unsupported, nearest

if TYPE_CHECKING:
    from underfire.data import Dataset
    from underfire.model import Classifier

_BATCH = 64  # test images explained at once


def train(
    name: str,
    model_uri: str,
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
    """Fit the interpreter `name` to a model and its data and save it to `out`.

    While it is trained, its state is kept in `OUT.checkpoint`; with `resume`, training goes on from there.

    Raises:
        Unsupported: the method has nothing to train. InputError: it has no such option; `out` is there already, or the
            state of an earlier training that neither `resume` nor `force` says what to do with.
    """
    import torch

    from underfire import data, models

    entry = find("interpreter", name)
    if not trainable(entry):
        choices = ", ".join(card.name for card in cards("interpreter") if trainable(card))
        raise Unsupported(f"{name} has nothing to train; choices: {choices}")
    made, fitted = _split(entry, settings)
    if out.is_dir():
        raise InputError(f"--out should be a file, and {out} is a folder; for example {out / f'{name}.safetensors'}")
    if out.exists() and not force:
        raise InputError(f"{out} exists already; pass --force to overwrite, or another path")
    checkpoint = out.with_name(f"{out.name}.checkpoint")
    if checkpoint.exists() and not (resume or force):
        raise InputError(f"{checkpoint} was left by a training; pass --resume to go on from it, --force to begin again")
    if resume and not checkpoint.is_file() and not quiet:
        ERR.print(f"there is no {checkpoint} to resume from; training begins at the start")
    model = models.load(model_uri, device=device(place))
    images = data.load(data_uri, n=n, seed=seed)
    test = data.load(test_uri) if test_uri else None
    if test is not None and n is not None and n < len(test):
        test = test.subset(n, seed)
    method = entry.with_options(**made)
    if not resume:
        checkpoint.unlink(missing_ok=True)  # not before all else is known to be right
    with ExitStack() as stack:
        show: Callable[[float], None] | None = None

        def tell(done: int, total: int) -> None:
            nonlocal show
            if show is None:
                bar = progress(f"train {name}", total, unit="passes", start=done, quiet=quiet)
                show = stack.enter_context(bar)
            show(done)

        kept = {"progress": tell, "checkpoint": checkpoint, "generator": torch.Generator().manual_seed(seed)}
        known = inspect.signature(method.fit).parameters  # type: ignore[attr-defined]
        method.fit(model, images, **fitted, **{k: v for k, v in kept.items() if k in known})  # type: ignore[attr-defined]
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
    """Whether a method is fitted to data, and what it learned can be written to a file."""
    return card.fitted and hasattr(card.function, "save")


def _split(card: Card, settings: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings for making the method, and for its `fit`."""
    fit = inspect.signature(card.function.fit).parameters  # type: ignore[attr-defined]
    numbers = {name: p.default for name, p in fit.items() if isinstance(p.default, (bool, int, float))}
    made: dict[str, Any] = {}
    fitted: dict[str, Any] = {}
    for name, value in typed(card, settings).items():
        if name in numbers:
            fitted[name] = _number(name, value, type(numbers[name]))
        elif name in card.options:
            made[name] = value
        else:
            raise InputError(f"{card.name} has no option {name!r}; {nearest(name, [*numbers, *card.options])}")
    return made, fitted


def _number(name: str, value: Any, kind: type) -> Any:
    """The value as a number of the kind that the option has by default."""
    from underfire.audit.spec import number

    value = value if kind in (bool, int) else number(value)
    if type(value) is not kind:
        said = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise InputError(f"{name!r} should be {said}, got {value!r}")
    return value


def quality(method: Any, model: Classifier, test: Dataset, seed: int) -> dict[str, float]:
    """How good the explanations of test images are, as means over them.

    The method's own loss where it has one; and where the evidence is known, how often the map's highest point is in it
    (the pointing game) and how much of the map, beside what chance would give: the evidence's share of the image.
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
