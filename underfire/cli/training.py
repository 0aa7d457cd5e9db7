"""`underfire train`: train an interpreter, a defence or an attack on data, write its weights, and evaluate it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from underfire.catalog import Card, cards, find
from underfire.catalog.options import check_options
from underfire.cli.options import typed
from underfire.cli.progress import progress
from underfire.cli.shared import ERR, OUT, open_model, print_json
from underfire.cli.shared import device as best_device
from underfire.cli.trained_networks import attacked_accuracy, defended_accuracy
from underfire.errors import InputError, Unsupported, nearest

if TYPE_CHECKING:
    from underfire.data import Dataset
    from underfire.model import Classifier

_BATCH = 64  # test images in one batch
_LEARN = {
    "aid": ("rts", "distil")
}  # names of a training that is not the fit of an interpreter: the method that it calls
_OWN_NETWORK = ("defense", "attack")  # kinds whose card names the function that trains a network
_OURS = ("generator", "progress", "checkpoint", "device")  # what this command passes to a training itself


def train(
    name: str,
    model_uri: str | None,
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
    """Train an interpreter, or the network of a defence or attack, and save it; `aid` trains RTS on with ADV².

    The state of the training is stored in `OUT.checkpoint`; with `resume`, training continues from it.

    Raises:
        Unsupported: the method is not trained. InputError: it has no such option, or needs a model; or `out` exists, or
            a checkpoint exists, and neither `resume` nor `force` is given.
    """
    import torch

    from underfire import data
    from underfire.audit.labels import open_data

    # check everything that does not need the model
    card, learn = trained_network(name)
    made, fitted = _split(card, learn, settings)
    known = inspect.signature(learn).parameters
    if out.is_dir():
        raise InputError(f"--out must be a file, and {out} is a folder; use for example {out / f'{name}.safetensors'}")
    if out.exists() and not force:
        raise InputError(f"{out} exists already; pass --force to overwrite, or another path")
    checkpoint = out.with_name(f"{out.name}.checkpoint")
    if checkpoint.exists() and not (resume or force):
        left = f"{checkpoint} was left by an earlier training"
        raise InputError(f"{left}; pass --resume to continue it, --force to start again")
    if model_uri is None and "model" in known:
        raise InputError(f"{name} is trained for a model; pass --model URI")
    if resume and not checkpoint.is_file() and not quiet:
        ERR.print(f"there is no {checkpoint} to resume from; training starts from the beginning")
    # open model and data
    model = None if model_uri is None else open_model(model_uri, output, place)
    if model is not None:
        card.check_domain(model.domain.name)

    def opened(uri: str, n: int | None = None) -> Dataset:
        return data.load(uri, n=n, seed=seed) if model is None else open_data(uri, model, n=n, seed=seed)

    images = opened(data_uri, n)
    test = opened(test_uri) if test_uri else None
    if test is not None and n is not None and n < len(test):
        test = test.subset(n, seed)
    method = card.with_options(**made) if card.fitted else None
    if not resume:
        checkpoint.unlink(missing_ok=True)  # only now, after all checks
    # train
    with ExitStack() as stack:
        show: Callable[[float], None] | None = None

        def tell(done: int, total: int) -> None:
            nonlocal show
            if show is None:
                bar = progress(f"train {name}", total, unit="passes" if method else "steps", start=done, quiet=quiet)
                show = stack.enter_context(bar)
            show(done)

        ours = {"progress": tell, "checkpoint": checkpoint, "generator": torch.Generator().manual_seed(seed)}
        ours["device"] = model.mean.device if model is not None else best_device(place)
        options = fitted | {key: value for key, value in ours.items() if key in known}
        subject = ([method] if method else []) + ([model] if "model" in known else [])
        trained = learn(*subject, images, **options)
    trained.save(out)
    checkpoint.unlink(missing_ok=True)
    # measure
    found = {"file": str(out), "bytes": out.stat().st_size, "images": len(images)}
    if test is not None:
        if card.kind == "attack":
            assert model is not None
            found |= attacked_accuracy(card, out, model, test)
        elif method is None or model is None:
            found |= defended_accuracy(card, out, model, test)
        else:
            found |= quality(method, model, test, seed)
    if as_json:
        print_json(found)
    elif not quiet:
        for key, value in found.items():
            OUT.print(f"{key}: {value:.4f}" if isinstance(value, float) else f"{key}: {value}")


def trainable(card: Card) -> bool:
    """Return whether a method learns from data and can be saved to a file."""
    if card.kind in _OWN_NETWORK:
        return card.facts.train is not None
    return card.fitted and hasattr(card.function, "save")


def trained_network(name: str) -> tuple[Card, Callable[..., Any]]:
    """Return the method that a name trains, and the function that trains it; of an interpreter it takes the object.

    Raises:
        Unsupported: the method is not trained. InputError: there is no such method.
    """
    choices = [card for kind in ("interpreter", *_OWN_NETWORK) for card in cards(kind) if trainable(card)]
    interpreter, verb = _LEARN.get(name, (name, "fit"))
    for card in choices:
        if card.kind in _OWN_NETWORK and card.name == name:
            return card, card.facts.train
        if card.kind == "interpreter" and card.name == interpreter:
            return card, getattr(card.function, verb)
    usable = [*(one.name for one in choices), *_LEARN, "linear_head", *(one.name for one in cards("training"))]
    named = [kind for kind in ("interpreter", *_OWN_NETWORK) if interpreter in {one.name for one in cards(kind)}]
    if not named:
        raise InputError(f"nothing that is trained has the name {name!r}; {nearest(name, usable)}")
    card = find(named[0], interpreter)
    raise Unsupported(f"{card.name} is not trained; choices: {', '.join(usable)}")


def _split(card: Card, learn: Callable[..., Any], settings: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split the settings into options of the method, which only an interpreter has, and options of its training.

    Raises:
        InputError: a setting is unknown or has the wrong type.
    """
    every = inspect.signature(learn).parameters.values()
    options = {p.name: p for p in every if p.kind is p.KEYWORD_ONLY and p.name not in _OURS}
    hints = get_type_hints(learn, localns={"Dataset": Any})
    given = typed(card, settings, {name: hints[name] for name in options})
    fitted = {name: value for name, value in given.items() if name in options}
    other = {name: value for name, value in given.items() if name not in options}
    if card.kind in _OWN_NETWORK:
        return {}, check_options(card.name, options, hints, given)
    return card.check(other, elsewhere=options), check_options(card.name, options, hints, fitted)


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
