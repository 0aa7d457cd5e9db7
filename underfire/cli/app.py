"""Define the verbs of the command line and their options; a verb imports the module that does its work when it runs."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

from underfire.allocation import keep_freed_memory
from underfire.cli.codes import HELD, NOT_BELIEVED
from underfire.cli.detect import verbs as detect
from underfire.cli.flags import (
    MOST,
    Confident,
    DataOfSpec,
    Device,
    FailOver,
    FailUnder,
    Force,
    Json,
    ModelOfSpec,
    Output,
    Quiet,
    Seed,
)
from underfire.cli.group import Verbs
from underfire.cli.method_verbs import verbs as methods
from underfire.cli.shared import OUT
from underfire.cli.study import verbs as study

app = typer.Typer(
    cls=Verbs,
    help="Put a classifier and its explanations under fire, and report what survives.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(methods)
app.add_typer(study, name="study")
app.add_typer(detect, name="detect")


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
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error, too.")] = False,
) -> None:
    """Define the options that precede the verb; `--debug` may also follow it."""
    keep_freed_memory()


@app.command()
def audit(
    spec: Annotated[Path | None, typer.Argument(help="The audit spec, a YAML file; default: the built-in one.")] = None,
    model: ModelOfSpec = None,
    output: Output = None,
    data: DataOfSpec = None,
    n: Annotated[int | None, typer.Option("--n", min=1, max=MOST, help="Number of images, drawn at random.")] = None,
    attack: Annotated[
        list[str] | None, typer.Option(help="An attack instead of those of the spec; may be repeated.")
    ] = None,
    interpreter: Annotated[
        list[str] | None, typer.Option(help="An interpreter instead of those of the spec; may be repeated.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="The run folder, a path or a URL.", show_default="runs/NAME-OF-THE-SPEC")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=1024,
            help="Number of worker processes; 0 uses this process alone.",
            show_default="one per core for a long audit",
        ),
    ] = None,
    executor: Annotated[
        str | None, typer.Option(help="What computes the cells: auto, in-process, processes, ray or ray://HOST:PORT.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="Replace the seeds of the spec.")] = None,
    device: Device = None,
    fail_under: FailUnder = None,
    fail_over: FailOver = None,
    confident: Confident = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Compute nothing; print the plan and an estimate of its cost.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run the audit that a spec describes and write its report. An interrupted audit continues when run again.

    Without a spec, --model and --data are audited by a few common methods.
    """
    from underfire.cli.choosing import Choice
    from underfire.cli.runs import audit as go

    methods = tuple(attack or ()), tuple(interpreter or ())
    choice = Choice(spec, model, data, n, *methods, seed, device, executor, output)
    limits = tuple(fail_under or ()), tuple(fail_over or ())
    _exit(go(choice, out, workers, limits, confident, dry_run, quiet, as_json))


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("audit.yaml"),
    model: ModelOfSpec = None,
    output: Output = None,
    data: DataOfSpec = None,
    force: Force = False,
) -> None:
    """Write an audit spec with a comment for every key, to be changed and run by underfire audit."""
    from underfire.cli.choosing import write_template

    write_template(path, model, data, force, output)


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="The folder of a run of underfire audit.")],
    html: Annotated[Path | None, typer.Option(help="The report page to write; default: RUN/report.html.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the results as JSON to JSON_PATH or stdout.")] = False,
    json_path: Annotated[Path | None, typer.Argument(metavar="[JSON_PATH]", help="File for --json.")] = None,
    csv: Annotated[Path | None, typer.Option(metavar="DIR", help="Write every table as CSV into this folder.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML, with the gates as test cases.")] = None,
    sarif: Annotated[Path | None, typer.Option(help="Write a SARIF log, with the findings as results.")] = None,
    clean: Annotated[
        bool, typer.Option("--clean", help="Delete the results that the spec of the run does not use.")
    ] = False,
    fail_under: FailUnder = None,
    fail_over: FailOver = None,
    confident: Confident = False,
    quiet: Quiet = False,
) -> None:
    """Write the report of a run again, as a page, JSON, CSV, JUnit XML or SARIF."""
    from underfire.cli.runs import report as go

    if json_path is not None and not as_json:
        raise typer.BadParameter(f"unexpected argument {str(json_path)!r}; a path must follow --json")
    extra = {"junit": junit, "sarif": sarif}
    limits = tuple(fail_under or ()), tuple(fail_over or ())
    _exit(go(run, html, as_json, json_path, csv, extra, clean, limits, confident, quiet))


@app.command()
def compare(
    before: Annotated[str, typer.Argument(help="The folder of a run.")],
    after: Annotated[str, typer.Argument(help="The folder of another run.")],
    every: Annotated[bool, typer.Option("--all", help="Also print the figures that did not change.")] = False,
    as_json: Json = False,
) -> None:
    """Compare two runs: which figures changed, with paired tests if the images are the same."""
    from underfire.cli.comparison import compare as go

    _exit(go(before, after, every, as_json))


@app.command()
def reproduce(
    name: Annotated[str | None, typer.Argument(help="The experiment; without a name, list all experiments.")] = None,
    data: Annotated[Path | None, typer.Option(help="Data and weights.", show_default="$UNDERFIRE_DATA")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.", show_default="runs/NAME")] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the experiments.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Run a small part, in about a minute.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Run the published size, for a GPU.")] = False,
    work: Annotated[
        Path | None, typer.Option(help="Folder that keeps finished parts.", show_default="runs/reproductions")
    ] = None,
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
        go(name, data, out, quick, full, work, seed, device, quiet, as_json)


def _exit(code: int) -> None:
    if code:
        raise typer.Exit(code)


@cache
def _commands() -> Any:
    """Return all verbs as one command, which typer reads from the signatures of the functions."""
    return get_command(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code, one of `underfire.cli.codes`."""
    try:
        given = list(sys.argv[1:] if arguments is None else arguments)
        debug = [word for word in given if word == "--debug"]
        _commands()(args=[*debug[:1], *(word for word in given if word != "--debug")], prog_name="underfire")
    except SystemExit as end:
        if end.code is None:
            return HELD
        return end.code if isinstance(end.code, int) else NOT_BELIEVED
    except Exception:  # noqa: BLE001 - a bug or foreign code: keep the traceback, but not its code 1, that of a gate
        traceback.print_exc()
        return NOT_BELIEVED
    return HELD
