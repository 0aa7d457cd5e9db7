"""`underfire detect`: fit a detector, score images with it, and evaluate it against attacks and corner cases."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from underfire.cli.flags import (
    MOST,
    BatchSize,
    Device,
    Force,
    Images,
    Json,
    Model,
    Number,
    Output,
    Quiet,
    Seed,
    Settings,
    Size,
)
from underfire.cli.group import Group

if TYPE_CHECKING:
    from underfire.cli.detecting import Setting

verbs = typer.Typer(
    cls=Group,
    help="Fit a detector of suspicious inputs, score images with it, and evaluate it against attacks.",
    no_args_is_help=True,
)


def _shared(
    *,
    model: Model,
    output: Output = None,
    batch_size: BatchSize = 64,
    seed: Seed = 0,
    device: Device = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> Setting:
    """Return the options that all verbs have."""
    from underfire.cli.detecting import Setting

    return Setting(model, output, batch_size, seed, device, quiet, as_json)


def _with_setting(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the options of `_shared`; it gets their values as its argument `setting`."""
    shared, own = inspect.signature(_shared).parameters, dict(inspect.signature(verb).parameters)
    del own["setting"]

    @wraps(verb)
    def run(**given: Any) -> None:
        setting = _shared(**{name: given.pop(name) for name in shared})
        verb(setting=setting, **given)

    # typer reads the names, the types and the defaults
    hints = {**_hints(verb), **_hints(_shared)}
    parameters = {**own, **shared}
    run.__annotations__ = {name: hints[name] for name in parameters}
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [p.replace(kind=p.KEYWORD_ONLY, annotation=hints[name]) for name, p in parameters.items()]
    )
    return run


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of the parameters of a function, with the facts for typer."""
    # `Setting` is not imported before a verb runs
    return get_type_hints(function, localns={"Setting": Any}, include_extras=True)


@verbs.command()
@_with_setting
def fit(
    setting: Setting,
    name: Annotated[str, typer.Argument(help="A detector of `underfire list detectors`.")],
    data: Annotated[str, typer.Option(help="Clean images with labels, as a data URI (cluttered-digits:train).")],
    out: Annotated[Path, typer.Option(help="The file to write, such as squeezing.safetensors.")],
    attack: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ATTACK",
            help="An attack that a supervised detector learns from: a name or '{name: pgd, eps: 0.1}'; repeatable.",
        ),
    ] = None,
    rate: Annotated[
        float, typer.Option("--false-positive-rate", help="Share of clean images that the threshold may flag.")
    ] = 0.05,
    settings: Settings = None,
    n: Annotated[
        int | None, typer.Option("--n", min=2, max=MOST, help="Number of images of --data; default: all.")
    ] = None,
    force: Force = False,
) -> None:
    """Fit a detector to one half of the images, choose its threshold from the other half, and save both.

    The file also marks these images, so that they are never used to evaluate the detector.
    """
    from underfire.cli.detecting import fit as go

    go(setting, name, tuple(settings or ()), data, n, tuple(attack or ()), rate, out, force)


@verbs.command()
@_with_setting
def score(
    setting: Setting,
    file: Annotated[Path, typer.Argument(help="A file of `underfire detect fit`.")],
    images: Images,
    out: Annotated[Path | None, typer.Option(help="A table to write, FILE.csv or FILE.parquet.")] = None,
    n: Number = None,
    size: Size = None,
    force: Force = False,
) -> None:
    """Score images: the score, its p-value against held-out clean images, and whether it is above the threshold."""
    from underfire.cli.detecting_images import score as go

    go(setting, file, images, n, size, out, force)


@verbs.command()
@_with_setting
def evaluate(
    setting: Setting,
    files: Annotated[list[Path], typer.Argument(help="Files of `underfire detect fit`, for the same model.")],
    data: Annotated[str, typer.Option(help="Test images with labels, as a data URI (cluttered-digits:test).")],
    attack: Annotated[
        list[str],
        typer.Option(
            metavar="ATTACK",
            help="An attack or corner case, a name or '{name: corner_cases, eps: [0.2, 0.6]}'; may be repeated.",
        ),
    ],
    aware: Annotated[
        bool, typer.Option("--aware", help="Also run the attacks against classifier and detector together (a guard).")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="A table of all scores to write, FILE.csv or FILE.parquet.")] = None,
    n: Annotated[int | None, typer.Option("--n", min=1, max=MOST, help="Number of images; default: all.")] = None,
    force: Force = False,
) -> None:
    """Evaluate detectors: AUROC and detection rates for each attack, the worst attack, and the mean.

    Images that a detector was fitted to or calibrated on are left out. Of several detectors, the best one is compared
    with each other one.
    """
    from underfire.cli.detecting_attacks import evaluate as go

    go(setting, tuple(files), data, n, tuple(attack), aware, out, force)
