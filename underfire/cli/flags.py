"""Define the arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MOST = 10**9  # the largest count that a flag takes
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress bar and no table.")]
Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON on stdout.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; default: the first GPU, or the CPU.")]
FailUnder = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-under",
        metavar="NAME=VALUE",
        help="Exit with 1 if a figure is lower than VALUE, such as robust_accuracy=0.5, and with 3 if the run is not "
        "finished or cannot be believed; may be repeated.",
    ),
]
FailOver = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-over",
        metavar="NAME=VALUE",
        help="The same for a figure that is the better the lower it is: exit with 1 if it is higher than VALUE, as in "
        "interpretation_gap=0.5.",
    ),
]
Confident = Annotated[
    bool,
    typer.Option(
        "--confident",
        help="Compare with the ends of the 95 % intervals, not with the estimates: --fail-under with the lower ones, "
        "--fail-over with the upper ones.",
    ),
]
_IMAGES = typer.Argument(help="An image, a folder of images, or a data URI (cluttered-digits:test).")
Images = Annotated[str, _IMAGES]
ImagesIfGiven = Annotated[str | None, _IMAGES]
Model = Annotated[str, typer.Option(help="zoo:NAME, PATH.safetensors?arch=NAME, python:package.module:factory ...")]
ModelOfSpec = Annotated[str | None, typer.Option(help="The model, instead of that of the spec (see `docs/spec.md`).")]
Output = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="How the logits are read from the model's answer: logits, binary, probabilities, the name of an entry, or "
        "its position in a tuple.",
    ),
]
DataOfSpec = Annotated[
    str | None, typer.Option(help="The images, such as folder:PATH or parquet:FILE, instead of those of the spec.")
]
Number = Annotated[
    int | None,
    typer.Option("--n", min=1, max=MOST, help="Number of images; default: all of a folder, 8 of a data URI."),
]
Size = Annotated[int | None, typer.Option(min=1, help="Scale and centre-crop image files to this many pixels a side.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="An option of the method, as name=value; may be repeated."),
]
Defenses = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="A defence in front of the model, such as jpeg or '{name: bit_depth, bits: 2}': gradients go through it "
        "(BPDA, EOT). May be repeated; the first one sees the images first.",
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, max=MOST, help="Number of images in one batch.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of all random numbers.")]
Out = Annotated[Path | None, typer.Option(help="Folder to write into.", show_default="underfire-NAME")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")]
