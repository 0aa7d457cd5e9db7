"""The verbs and their options; what they do is in the modules beside this one, imported when a verb runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from underfire.catalog import find
from underfire.cli.flags import (
    BatchSize,
    Device,
    FailUnder,
    Force,
    Images,
    ImagesIfGiven,
    Json,
    Model,
    Number,
    Out,
    Quiet,
    Seed,
    Settings,
    Size,
)
from underfire.cli.shared import ERR, OUT, one_line
from underfire.cli.study import verbs as study
from underfire.errors import UnderfireError

FAILED_GATE, BAD_INPUT, INTERRUPTED = 1, 2, 130
_AGAIN = {
    "audit": "; run the same command again and it continues",
    "train": "; run the same command again with --resume and it continues",
}
_UsageError: Any = typer.BadParameter.__base__  # typer does not export it, and keeps it elsewhere in other versions


class _Verbs(TyperGroup):
    """Turns what goes wrong on purpose into one line and an exit code; anything else is a bug, with its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of our output (`| head`) has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(FAILED_GATE) from None
        except _UsageError as error:
            where = error.ctx.command_path if error.ctx else "underfire"
            said = " ".join(error.format_message().split())
            ERR.print(f"error: {said}{'' if said[-1:] in '.?)' else '.'} See: {where} --help", markup=False)
            raise typer.Exit(BAD_INPUT) from None
        except (UnderfireError, OSError) as error:
            ERR.print(f"error: {one_line(error)}")
            raise typer.Exit(BAD_INPUT) from None
        except KeyboardInterrupt:
            ERR.print(f"interrupted{_AGAIN.get(ctx.invoked_subcommand, '')}")
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=_Verbs,
    help="Put a classifier and its explanations under fire, and report what survives.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(study, name="study")


def _version(wanted: bool) -> None:
    if wanted:
        from underfire import __version__

        OUT.print(f"underfire {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Options before the verb."""


@app.command()
def audit(
    spec: Annotated[Path | None, typer.Argument(help="The audit as YAML; default: the one inside underfire.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder.", show_default="runs/NAME-OF-THE-SPEC")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Worker processes; 0: none.", show_default="one per core, if it takes long"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the seeds in the spec.")] = None,
    device: Device = None,
    fail_under: FailUnder = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Attack a classifier and its explanations as a spec says, and report. Killed, it continues when run again."""
    from underfire.cli.runs import audit as go

    _gate(go(spec, out, workers, seed, device, tuple(fail_under or ()), quiet, as_json))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run folder of underfire audit.")],
    html: Annotated[Path | None, typer.Option(help="Write the report page here; default: RUN/report.html.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Results as JSON, to JSON_PATH or to stdout.")] = False,
    json_path: Annotated[Path | None, typer.Argument(metavar="[JSON_PATH]", help="File for --json.")] = None,
    csv: Annotated[Path | None, typer.Option(metavar="DIR", help="Write every table as CSV into this folder.")] = None,
    fail_under: FailUnder = None,
    quiet: Quiet = False,
) -> None:
    """Write the report of a run again: as a page, as JSON, as CSV."""
    from underfire.cli.runs import report as go

    if json_path is not None and not as_json:
        raise typer.BadParameter(f"unexpected argument {str(json_path)!r}; a path goes after --json")
    _gate(go(run, html, as_json, json_path, csv, tuple(fail_under or ()), quiet))


@app.command()
def attack(
    name: Annotated[str, typer.Argument(help="An attack of `underfire list attacks`.")],
    images: Images,
    model: Model,
    eps: Annotated[str | None, typer.Option(help="Largest size of the perturbation, as 0.03 or 8/255.")] = None,
    norm: Annotated[str | None, typer.Option(help="How the size is measured: linf, l2, l1 ...")] = None,
    steps: Annotated[int | None, typer.Option(help="Iterations.")] = None,
    goal: Annotated[
        str | None,
        typer.Option(help="A class, `random` or `least-likely`; default: any wrong class."),
    ] = None,
    interpreter: Annotated[str | None, typer.Option(help="Show this explanation too; adv2 attacks it.")] = None,
    settings: Settings = None,
    n: Number = None,
    size: Size = None,
    batch_size: BatchSize = 16,
    out: Out = None,
    force: Force = False,
    seed: Seed = 0,
    device: Device = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Attack images: adversarial images, magnified perturbations, sheets, and a table of what was measured."""
    from underfire.cli import options, pictures

    aimed = "interpreter" in find("attack", name).options
    mode = {None: "untargeted", "random": "random-target", "least-likely": "least-likely"}.get(goal)
    entry = options.attack(
        name,
        tuple(settings or ()),
        eps=eps,
        norm=norm,
        steps=steps,
        goal=mode or "random-target",  # of a given class, the check is the same
        interpreter=interpreter if aimed else None,
    )
    place = out or Path(f"underfire-{name}")
    job = pictures.Job(images, model, n, size, batch_size, place, force, seed, device, quiet, as_json)
    pictures.attack(job, entry, None if mode else goal, interpreter)


@app.command()
def explain(
    model: Model,
    name: Annotated[
        str | None, typer.Argument(help="An interpreter of `underfire list interpreters`; not with --all.")
    ] = None,
    images: ImagesIfGiven = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every interpreter that gives a map, and every class, as one figure an image.")
    ] = False,
    classes: Annotated[
        int | None,
        typer.Option(min=1, help="With --all, so many of the likeliest classes.", show_default="all up to 10, else 3"),
    ] = None,
    goal: Annotated[
        str | None,
        typer.Option(help="The class to explain, or to change to; default: the predicted one, or any other."),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Known images that it learns from or compares with, a data URI.")
    ] = None,
    reference_n: Annotated[int | None, typer.Option(min=1, help="How many of --reference; default: all.")] = None,
    settings: Settings = None,
    n: Number = None,
    size: Size = None,
    batch_size: BatchSize = 16,
    out: Out = None,
    force: Force = False,
    seed: Seed = 0,
    device: Device = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Explain predictions: a map over each image, a changed image, examples or rules, and a table."""
    from underfire.cli import explaining, pictures, side_by_side

    if every and name is not None and images is None:  # then the one argument is the images
        name, images = "all", name
    if name is None or images is None or (every and (name != "all" or settings or reference)):
        usage = "explain --all IMAGES --model URI" if every else "explain NAME IMAGES --model URI"
        raise typer.BadParameter(f"it is: underfire {usage}{', without --set and --reference' if every else ''}")
    if classes is not None and not every:
        raise typer.BadParameter("--classes goes with --all; one interpreter explains --goal, or the predicted class")
    place = out or Path(f"underfire-{name}")
    job = pictures.Job(images, model, n, size, batch_size, place, force, seed, device, quiet, as_json)
    if every:
        side_by_side.explain_all(job, goal, classes)
    else:
        explaining.explain(job, name, goal, tuple(settings or ()), reference, reference_n)


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="An interpreter that learns, such as rts.")],
    model: Model,
    data: Annotated[str, typer.Option(help="The images to learn from, a data URI (cluttered-digits:train).")],
    out: Annotated[Path, typer.Option(help="The file to write, FILE.safetensors.")],
    settings: Settings = None,
    n: Annotated[
        int | None, typer.Option("--n", min=1, help="How many images of --data, and at most of --test; default: all.")
    ] = None,
    test: Annotated[str | None, typer.Option(help="Images to measure the result on, a data URI.")] = None,
    seed: Seed = 0,
    device: Device = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the same command was interrupted.")] = False,
    force: Force = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train an explanation method that learns, for one classifier, and write its weights to a file."""
    from underfire.cli.training import train as go

    go(name, model, data, out, tuple(settings or ()), n, test, seed, device, resume, force, quiet, as_json)


@app.command("list")
def list_(
    kind: Annotated[str | None, typer.Argument(help="attack, interpreter, measure ...; default: everything.")] = None,
    as_json: Json = False,
) -> None:
    """Every method there is, with its card: source and facts."""
    from underfire.cli.listing import show

    show(kind, as_json)


@app.command()
def reproduce(
    name: Annotated[str | None, typer.Argument(help="Which; without it, they are listed.")] = None,
    data: Annotated[Path | None, typer.Option(help="Data and weights.", show_default="$UNDERFIRE_DATA")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.", show_default="runs/NAME")] = None,
    listing: Annotated[bool, typer.Option("--list", help="List them.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="A small part of it, in a minute.")] = False,
    seed: Seed = 0,
    device: Device = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run a published experiment and hold our numbers against the paper's."""
    from underfire.cli.listing import show_reproductions
    from underfire.cli.runs import reproduce as go

    if name is None or listing:
        show_reproductions(as_json)
    else:
        go(name, data, out, quick, seed, device, quiet, as_json)


def _gate(passed: bool) -> None:
    if not passed:
        raise typer.Exit(FAILED_GATE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 a gate failed, 2 bad input, 130 interrupted."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="underfire")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0
