"""`underfire audit`, `underfire report` and `underfire reproduce`: run long jobs and report their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underfire.cli.choosing import Choice
from underfire.cli.codes import HELD
from underfire.cli.gates import Gate, Limits, exit_code, lines, outcomes, parse
from underfire.cli.planning import show_plan
from underfire.cli.progress import StagedBar
from underfire.cli.shared import ERR, OUT, RESULTS, atomic_write_all, device, print_json, to_json
from underfire.cli.summary import print_summary

if TYPE_CHECKING:
    from underfire.audit.ledger import Ledger
    from underfire.audit.run import Event


def audit(
    choice: Choice,
    out: str | None,
    workers: int | None,
    limits: Limits,
    confident: bool,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Run or continue an audit, write its report and print its summary; with `dry_run`, print its plan and cost.

    Returns:
        The exit code, which depends on the gates and on whether the run can be believed.
    """
    import torch

    from underfire import report
    from underfire.audit.history import same_plan, stale, stamp
    from underfire.audit.run import choose_executor, run

    if workers is None:
        torch.set_num_threads(1)  # as in workers: torch's thread pool is slow on cores that other programs use, too
    spec = choice.spec(quiet)
    gates = parse(limits, spec)
    name = choice.name
    out = out or str(Path("runs") / name)
    if dry_run:
        show_plan(spec, out, as_json)
        return HELD
    before = _head(out)
    with ExitStack() as stack:
        bar = StagedBar(stack, "audit", "images", "checking the model and the images", quiet)

        def tell(event: Event) -> None:
            _tell_damaged(event.damaged, quiet)
            if sum(cost.seconds for cost in event.costs) >= _LONG and not quiet:
                ERR.print(_plan(event))
            if event.skipped and not event.what and not quiet:
                there = f"{event.skipped} of {event.skipped + event.of_cells} cells are finished already"
                ERR.print(f"continuing: {there}")
            bar(event.done, event.total, f"audit, {event.cells} of {event.of_cells} cells", event.share)

        chosen = stack.enter_context(choose_executor(spec, workers))
        ledger = run(spec, out, executor=chosen, progress=tell)
    if chosen.idle_share is not None and not quiet:
        ERR.print(f"workers waited {chosen.idle_share:.0%} of the time")
    page = _page(out, name)
    if before is not None and not same_plan(before, ledger.about) and page.exists():
        kept = page.replace(page.with_name(f"{page.stem}-{stamp(before)}.html"))
        if not quiet:
            ERR.print(f"the report of the plan before is kept as {kept}", soft_wrap=True)
    old = stale(ledger)
    if old.keys and not quiet:
        size = f"{len(old.keys)} results of other plans ({old.bytes / 1e6:.1f} MB)"
        ERR.print(f"{size} are in {out}; underfire report {out} --clean deletes them", soft_wrap=True)
    return _results(ledger, gates, confident, quiet, as_json, report.html(ledger, page))


_LONG = 120.0
"""An audit that is estimated to take at least this long, in seconds, prints the estimate before it begins."""


def _plan(event: Event) -> str:
    """Return one line about the size of a run before its first cell: its cells, and an estimate of its time."""
    seconds: dict[str, float] = {}
    for cost in event.costs:
        seconds[cost.label] = seconds.get(cost.label, 0.0) + cost.seconds
    total, label = sum(seconds.values()), max(seconds, key=lambda name: seconds[name])
    share = f", {seconds[label] / total:.0%} of it for {label}" if len(seconds) > 1 else ""
    return f"plan: {event.of_cells} cells, roughly {_duration(total)} of computing in one process{share}"


def _duration(seconds: float) -> str:
    """Return a time in the largest unit of which it has at least two.

    >>> _duration(0.1), _duration(100), _duration(3e4), _duration(1e11)
    ('1 second', '100 seconds', '8 hours', '3,169 years')
    """
    units = {"years": 31_557_600.0, "days": 86_400.0, "hours": 3600.0, "minutes": 60.0, "seconds": 1.0}
    unit = next((name for name, size in units.items() if seconds >= 2 * size), "second")
    return f"{max(1, round(seconds / units.get(unit, 1.0))):,} {unit}"


def _tell_damaged(files: Sequence[str], quiet: bool) -> None:
    """Name the files of a run folder that are damaged, ten at most."""
    if files and not quiet:
        more = f" and {len(files) - 10} more" if len(files) > 10 else ""
        ERR.print(f"damaged after they were written: {', '.join(files[:10])}{more}; an audit computes them again")


def _head(out: str) -> dict[str, Any] | None:
    """Return the head of the last run in a folder, or None if there is none that can be read."""
    from underfire.audit.ledger import read_head
    from underfire.audit.store import Store
    from underfire.errors import LedgerError

    try:
        return read_head(Store(out), out)
    except LedgerError:
        return None


def _page(run: str, name: str) -> Path:
    """Return the path of the report: in the run folder, or in the current folder if the run is in an object store."""
    return Path(f"{name}.html") if "://" in run else Path(run) / "report.html"


def report(
    run: str,
    html: Path | None,
    as_json: bool,
    json_path: Path | None,
    csv: Path | None,
    for_ci: Mapping[str, Path | None],
    clean: bool,
    limits: Limits,
    confident: bool,
    quiet: bool,
) -> int:
    """Write the report of a run in the requested formats, by default as a page.

    `for_ci` has the files for `junit` and `sarif`; with `clean`, results that the plan does not use are deleted.

    Returns:
        The exit code, which depends on the gates and on whether the run can be believed.
    """
    from underfire import report as reports
    from underfire.audit.history import clean as delete_stale
    from underfire.audit.ledger import Ledger
    from underfire.audit.summary import findings

    ledger = Ledger(run)
    gates = parse(limits, ledger.spec)
    if clean:
        found = delete_stale(ledger)
        ERR.print(f"deleted {len(found.keys)} results of other plans ({found.bytes / 1e6:.1f} MB)")
    _tell_damaged(list(ledger.damaged.values()), quiet)
    if ledger.missing and not quiet:
        ERR.print(f"the run is not finished: {ledger.missing} of {ledger.planned} cells are missing")
    page = None
    if html is not None or not (as_json or csv or any(for_ci.values())):
        page = reports.html(ledger, html or _page(run, "report"))
    if csv is not None:
        reports.to_csv(ledger, csv)
    if json_path is not None:
        with atomic_write_all(json_path.parent, [json_path.name], force=True) as staging:
            (staging / json_path.name).write_text(to_json(reports.to_json(ledger)) + "\n", encoding="utf-8")
    for name, place in for_ci.items():
        if place is not None:
            results = findings(ledger)
            write = {"junit": reports.junit, "sarif": reports.sarif}[name]
            text = write(ledger, results, outcomes(results, gates, confident=confident))
            with atomic_write_all(place.parent, [place.name], force=True) as staging:
                (staging / place.name).write_text(text, encoding="utf-8")
    return _results(ledger, gates, confident, quiet, as_json and json_path is None, page)


def _results(ledger: Ledger, gates: list[Gate], confident: bool, quiet: bool, as_json: bool, page: Path | None) -> int:
    """Print the results and each gate that does not hold; return the exit code."""
    from underfire import report as reports
    from underfire.audit.gates import sound
    from underfire.audit.summary import findings

    found = findings(ledger)
    if as_json:
        print_json(reports.to_json(ledger))
    elif not quiet:
        print_summary(found)
        for note in ledger.environment.get("notes") or ():
            OUT.print(f"Note: {note}")
    if page is not None and not quiet:
        (ERR if as_json else OUT).print(f"Report: {page}", soft_wrap=True)
    results = outcomes(found, gates, confident=confident)
    if results or quiet or as_json:  # without a gate, the summary says it all
        for line in lines(results, found.standing):
            ERR.print(line)
    if results and sound(found.standing) and not quiet:
        for reason in found.standing.reasons:
            ERR.print(f"warning: {reason}")
    return exit_code(results, found.standing)


def reproduce(
    name: str,
    data_root: Path | None,
    out: Path | None,
    quick: bool,
    full: bool,
    work: Path | None,
    seed: int,
    place: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run a published experiment, and print its results as a table or JSON."""
    from underfire import reproductions

    with ExitStack() as stack:
        bar = StagedBar(stack, name, "parts", "opening models and data", quiet)
        table = reproductions.run(
            name,
            data_root=data_root,
            out=out or Path("runs") / name,
            seed=seed,
            device=device(place),
            quick=quick,
            full=full,
            work=work,
            progress=lambda done, total, what: bar(done, total, f"{name}: {what}"),
        )
    if as_json:
        print(table.with_suffix(".json").read_text(encoding="utf-8"), end="", file=RESULTS)
    elif not quiet:
        print(table.read_text(encoding="utf-8"), end="", file=RESULTS)
        ERR.print(f"written to {table}")
