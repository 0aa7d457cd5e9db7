"""`underfire detect`: fit a detector, score images with it, and evaluate it against attacks and corner cases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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

verbs = typer.Typer(
    cls=Group,
    help="Fit a detector of suspicious inputs, score images with it, and evaluate it against attacks.",
    no_args_is_help=True,
)


@verbs.command()
def fit(
    name: Annotated[str, typer.Argument(help="A detector of `underfire list detectors`.")],
    model: Model,
    data: Annotated[str, typer.Option(help="Clean images with labels, as a data URI (cluttered-digits:train).")],
    out: Annotated[Path, typer.Option(help="The file to write, such as squeezing.safetensors.")],
    output: Output = None,
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
    batch_size: BatchSize = 64,
    seed: Seed = 0,
    device: Device = None,
    force: Force = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Fit a detector to one half of the images, choose its threshold from the other half, and save both.

    The file also marks these images, so that they are never used to evaluate the detector.
    """
    from underfire.cli.detecting import Setting
    from underfire.cli.detecting import fit as go

    setting = Setting(model, output, batch_size, seed, device, quiet, as_json)
    go(setting, name, tuple(settings or ()), data, n, tuple(attack or ()), rate, out, force)


@verbs.command()
def score(
    file: Annotated[Path, typer.Argument(help="A file of `underfire detect fit`.")],
    images: Images,
    model: Model,
    output: Output = None,
    out: Annotated[Path | None, typer.Option(help="A table to write, FILE.csv or FILE.parquet.")] = None,
    n: Number = None,
    size: Size = None,
    batch_size: BatchSize = 64,
    seed: Seed = 0,
    device: Device = None,
    force: Force = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Score images: the score, its p-value against held-out clean images, and whether it is above the threshold."""
    from underfire.cli.detecting import Setting
    from underfire.cli.detecting_images import score as go

    go(Setting(model, output, batch_size, seed, device, quiet, as_json), file, images, n, size, out, force)


@verbs.command()
def evaluate(
    files: Annotated[list[Path], typer.Argument(help="Files of `underfire detect fit`, for the same model.")],
    model: Model,
    data: Annotated[str, typer.Option(help="Test images with labels, as a data URI (cluttered-digits:test).")],
    attack: Annotated[
        list[str],
        typer.Option(
            metavar="ATTACK",
            help="An attack or corner case, a name or '{name: corner_cases, eps: [0.2, 0.6]}'; may be repeated.",
        ),
    ],
    output: Output = None,
    aware: Annotated[
        bool, typer.Option("--aware", help="Also run the attacks against classifier and detector together (a guard).")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="A table of all scores to write, FILE.csv or FILE.parquet.")] = None,
    n: Annotated[int | None, typer.Option("--n", min=1, max=MOST, help="Number of images; default: all.")] = None,
    batch_size: BatchSize = 64,
    seed: Seed = 0,
    device: Device = None,
    force: Force = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Evaluate detectors: AUROC and detection rates for each attack, the worst attack, and the mean.

    Images that a detector was fitted to or calibrated on are left out.
    """
    from underfire.cli.detecting import Setting
    from underfire.cli.detecting_attacks import evaluate as go

    setting = Setting(model, output, batch_size, seed, device, quiet, as_json)
    go(setting, tuple(files), data, n, tuple(attack), aware, out, force)
