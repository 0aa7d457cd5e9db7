"""Define the verbs of the command line and their options; a verb imports the module that does its work when it runs."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from underfire.cli.codes import HELD, NOT_BELIEVED
from underfire.cli.flags import (
    BatchSize,
    Confident,
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
from underfire.cli.group import Verbs
from underfire.cli.shared import OUT
from underfire.cli.study import verbs as study

app = typer.Typer(
    cls=Verbs,
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
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Define the options that precede the verb."""


@app.command()
def audit(
    spec: Annotated[Path | None, typer.Argument(help="The audit spec, a YAML file; default: the built-in one.")] = None,
    out: Annotated[
        str | None, typer.Option(help="The run folder, a path or a URL.", show_default="runs/NAME-OF-THE-SPEC")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Number of worker processes; 0 uses this process alone.",
            show_default="one per core for a long audit",
        ),
    ] = None,
    executor: Annotated[
        str | None, typer.Option(help="What computes the cells: auto, in-process, processes, ray or ray://HOST:PORT.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Replace the seeds of the spec.")] = None,
    device: Device = None,
    fail_under: FailUnder = None,
    confident: Confident = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run the audit that a spec describes and write its report. An interrupted audit continues when run again."""
    from underfire.cli.runs import audit as go

    _exit(go(spec, out, workers, executor, seed, device, tuple(fail_under or ()), confident, quiet, as_json))


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="The folder of a run of underfire audit.")],
    html: Annotated[Path | None, typer.Option(help="The report page to write; default: RUN/report.html.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the results as JSON to JSON_PATH or stdout.")] = False,
    json_path: Annotated[Path | None, typer.Argument(metavar="[JSON_PATH]", help="File for --json.")] = None,
    csv: Annotated[Path | None, typer.Option(metavar="DIR", help="Write every table as CSV into this folder.")] = None,
    fail_under: FailUnder = None,
    confident: Confident = False,
    quiet: Quiet = False,
) -> None:
    """Write the report of a run again, as a page, JSON or CSV."""
    from underfire.cli.runs import report as go

    if json_path is not None and not as_json:
        raise typer.BadParameter(f"unexpected argument {str(json_path)!r}; a path must follow --json")
    _exit(go(run, html, as_json, json_path, csv, tuple(fail_under or ()), confident, quiet))


@app.command()
def attack(
    name: Annotated[str, typer.Argument(help="An attack of `underfire list attacks`.")],
    images: Images,
    model: Model,
    eps: Annotated[str | None, typer.Option(help="Largest size of the perturbation, such as 0.03 or 8/255.")] = None,
    norm: Annotated[str | None, typer.Option(help="Norm of the size: linf, l2, l1 ...")] = None,
    steps: Annotated[int | None, typer.Option(help="Number of iterations.")] = None,
    goal: Annotated[
        str | None,
        typer.Option(help="A class, `random` or `least-likely`; default: any wrong class."),
    ] = None,
    interpreter: Annotated[
        str | None, typer.Option(help="Also write the maps of this interpreter; adv2 attacks them.")
    ] = None,
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
    """Attack images; write adversarial images, magnified perturbations, figures and a table of measurements."""
    from underfire.catalog import find
    from underfire.cli import options, pictures

    aimed = "interpreter" in find("attack", name).options
    mode = {None: "untargeted", "random": "random-target", "least-likely": "least-likely"}.get(goal)
    entry = options.attack(
        name,
        tuple(settings or ()),
        eps=eps,
        norm=norm,
        steps=steps,
        goal=mode or "random-target",  # a given class is checked in the same way
        interpreter=interpreter if aimed else None,
    )
    place = out or Path(f"underfire-{name}")
    job = pictures.Job(images, model, n, size, batch_size, place, force, seed, device, quiet, as_json)
    pictures.attack(job, entry, None if mode else goal, interpreter)


@app.command()
def explain(
    model: Model,
    name: Annotated[
        str | None, typer.Argument(help="An interpreter of `underfire list interpreters`; leave it out with --all.")
    ] = None,
    images: ImagesIfGiven = None,
    every: Annotated[
        bool,
        typer.Option("--all", help="One figure per image: every interpreter that returns a map, for every class."),
    ] = False,
    classes: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --all: the number of most likely classes.", show_default="all of up to 10, else 3"
        ),
    ] = None,
    goal: Annotated[
        str | None,
        typer.Option(
            help="The class to explain; default: the predicted class. Of changed images, the class to reach; "
            "default: any other class."
        ),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Images to fit the interpreter to or to compare with, as a data URI.")
    ] = None,
    reference_n: Annotated[
        int | None, typer.Option(min=1, help="Number of images of --reference; default: all.")
    ] = None,
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
    """Explain predictions; write maps over images, changed images, examples or rules, and a table."""
    from underfire.cli import explaining, pictures, side_by_side

    if every and name is not None and images is None:  # with --all, the first argument is the images
        name, images = "all", name
    if name is None or images is None or (every and (name != "all" or settings or reference)):
        usage = "explain --all IMAGES --model URI" if every else "explain NAME IMAGES --model URI"
        without = ", without --set and --reference" if every else ""
        raise typer.BadParameter(f"the arguments must be: underfire {usage}{without}")
    if classes is not None and not every:
        raise typer.BadParameter("--classes requires --all; one interpreter explains --goal, or the predicted class")
    place = out or Path(f"underfire-{name}")
    job = pictures.Job(images, model, n, size, batch_size, place, force, seed, device, quiet, as_json)
    if every:
        side_by_side.explain_all(job, goal, classes)
    else:
        explaining.explain(job, name, goal, tuple(settings or ()), reference, reference_n)


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="An interpreter that is trained, such as rts.")],
    model: Model,
    data: Annotated[str, typer.Option(help="Training images, as a data URI (cluttered-digits:train).")],
    out: Annotated[Path, typer.Option(help="The file to write, such as rts.safetensors.")],
    settings: Settings = None,
    n: Annotated[
        int | None, typer.Option("--n", min=1, help="Number of images of --data, and at most of --test; default: all.")
    ] = None,
    test: Annotated[str | None, typer.Option(help="Images to evaluate the result on, as a data URI.")] = None,
    seed: Seed = 0,
    device: Device = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run of the same command.")] = False,
    force: Force = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train an interpreter for one classifier and write its weights to a file."""
    from underfire.cli.training import train as go

    go(name, model, data, out, tuple(settings or ()), n, test, seed, device, resume, force, quiet, as_json)


@app.command("list")
def list_(
    kind: Annotated[str | None, typer.Argument(help="attack, interpreter, measure ...; default: all kinds.")] = None,
    as_json: Json = False,
) -> None:
    """List the methods with their sources and facts."""
    from underfire.cli.listing import show

    show(kind, as_json)


@app.command()
def reproduce(
    name: Annotated[str | None, typer.Argument(help="The experiment; without a name, list all experiments.")] = None,
    data: Annotated[Path | None, typer.Option(help="Data and weights.", show_default="$UNDERFIRE_DATA")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.", show_default="runs/NAME")] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the experiments.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Run a small part, in about a minute.")] = False,
    seed: Seed = 0,
    device: Device = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run a published experiment and compare our numbers with the paper's."""
    from underfire.cli.listing import show_reproductions
    from underfire.cli.runs import reproduce as go

    if name is None or listing:
        show_reproductions(as_json)
    else:
        go(name, data, out, quick, seed, device, quiet, as_json)


def _exit(code: int) -> None:
    if code:
        raise typer.Exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code, one of `underfire.cli.codes`."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="underfire")
    except SystemExit as end:
        if end.code is None:
            return HELD
        return end.code if isinstance(end.code, int) else NOT_BELIEVED
    except Exception:  # noqa: BLE001 - a bug or foreign code: keep the traceback, but not its code 1, that of a gate
        traceback.print_exc()
        return NOT_BELIEVED
    return HELD
