"""Write `docs/reliability.md` from the results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Row = tuple[str, str, str]

DEPENDENCIES = """
## Dependencies

`constraints.txt` pins every package by its version, and `constraints-hashed.txt` by the SHA-256 of its file, for the
platform that its first line names. This refuses any other file:

    pip install --require-hashes --no-deps --requirement constraints-hashed.txt

A hash holds for one platform, and that of torch for one build: the file has the build for processors alone, whose
version ends in `+cpu`. It cannot be installed from a registry that has only the build for CUDA, which also needs
packages of NVIDIA. `make constraints` writes the hashes of the files that pip chooses on the machine and from the
registry at hand. Therefore `make setup` compares versions and not hashes.

`make vulnerabilities`, which continuous integration runs, asks the service of `pip-audit` about every pinned package.
It says how many the service knows, and that nothing was looked up where it knows none.
"""


def page(results: dict[str, Any]) -> str:
    """Return the page as Markdown, with the experiments that `results` has."""
    rows = [row for name, make in ROWS.items() if name in results for row in make(results[name])]
    text = [
        "# Reliability",
        "",
        "What an audit survives, as `make chaos` measured it. The command kills runs, fills disks, flips bits and",
        "feeds hostile files to the program. All random choices come from one seed; how many fit into the time",
        "depends on the machine.",
        "",
        f"Seed {results['seed']}, {results['seconds']} seconds on {results['cores']} core(s), underfire",
        f"{results['underfire']}, Python {results['python']}, torch {results['torch']}. The numbers are in",
        "[reliability.json](reliability.json).",
        "",
        "| what is done | how often | what happens |",
        "| --- | ---: | --- |",
        *(f"| {what} | {often} | {outcome} |" for what, often, outcome in rows),
        "",
        "A file is whole or not there: it is written under another name, flushed to the disk, renamed, and then its",
        "folder is flushed. Every file of a run has a checksum, which is compared when it is read. A damaged result is",
        "named, counts as missing, and the next `underfire audit` of the same folder computes it again.",
        "",
        *_growth(results),
        "## What was not as it should be",
        "",
    ]
    wrong = [
        *results.get("damage", {}).get("unnoticed", []),
        *(f"a spec: {line}" for line in results.get("specs", {}).get("crashed", [])[:10]),
        *(f"a command line: {line}" for line in results.get("commands", {}).get("otherwise", [])),
        *(f"a model file: {line}" for line in results.get("model-files", {}).get("otherwise", [])),
    ]
    text += [f"* `{_printable(line)}`" for line in wrong] or ["Nothing, in this run."]
    text += [
        "",
        "## Limits",
        "",
        "A spec may have 500,000 bytes, 100,000 keys and values (an alias counts as often as it is used), and 1,000",
        "attacks, sizes of an attack, interpreters, measures, seeds and gates. Counts are at most 1,000,000,000, and",
        "seeds at most 2⁶³ − 1. A value in an error message is cut to 200 characters. An audit that takes minutes or",
        "more says roughly how long before its first cell.",
        *DEPENDENCIES.splitlines(),
    ]
    return "\n".join(text) + "\n"


def _printable(line: str) -> str:
    """Return a line of code for Markdown, with control characters as escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line.replace("`", ""))


def _kills(found: dict[str, Any]) -> list[Row]:
    names = ", ".join(f"{number} {name}" for name, number in found["kills"].items())
    often = f"{sum(found['kills'].values())} kills of {found['runs']} runs"
    lost = f"{found['lost']} finished cells lost, {found['torn']} torn, {found['refused']} runs refused"
    what = f"A run is killed at a random moment ({names}), and continued until it is done"
    return [(what, often, f"{lost}, {found['different']} results differ")]


def _at_once(found: dict[str, Any]) -> list[Row]:
    outcome = f"{found['failed']} failed, {found['torn']} cells torn, {found['different']} results differ"
    return [(f"{found['together']} runs of one audit in one folder at once", f"{found['rounds']}", outcome)]


def _workers(found: dict[str, Any]) -> list[Row]:
    left = f"{found['left']} left a worker behind; after both kinds of kill, {found['different']} results differ"
    return [
        ("A worker process is killed", f"{found['workers']}", f"{found['said']} said so in one line"),
        ("A run with worker processes is killed", f"{found['parents']}", left),
    ]


def _disks(found: dict[str, Any]) -> list[Row]:
    often = f"{found['disks']} disks, {found['files']} limits"
    ended = f"{found['one line']} ended in one line and {found['finished']} had room enough"
    after = f"continued with more room: {found['torn']} cells torn, {found['different']} results differ"
    return [("The disk is full, or a file may not grow", often, f"{ended}; {after}")]


def _damage(found: dict[str, Any]) -> list[Row]:
    noticed = {kind: found[kind] - _unnoticed(found, kind) for kind in ("bits", "cut", "deleted")}
    both = f"{noticed['cut']}, {noticed['deleted']} noticed"
    equal = f"{found['repaired']} results equal to those before"
    return [
        (
            f"One bit of one of {found['files']} files of a run is flipped",
            f"{found['bits']}",
            f"{noticed['bits']} noticed",
        ),
        ("A file of a run is cut, or deleted", f"{found['cut']}, {found['deleted']}", both),
        ("Five files of a run are damaged; the audit is run again", f"{found['repairs']}", equal),
    ]


def _specs(found: dict[str, Any]) -> list[Row]:
    outcome = (
        f"{found['refused']} refused in one line, {found['accepted']} still valid, {len(found['crashed'])} tracebacks"
    )
    return [("A spec is mutated, in its values or in its text", f"{found['specs']}", outcome)]


def _commands(found: dict[str, Any]) -> list[Row]:
    outcome = f"{found['refused in one line']} refused in one line with exit code 2"
    return [("A wrong command line", f"{found['commands']}", outcome)]


def _model_files(found: dict[str, Any]) -> list[Row]:
    what = "A hostile model file: a pickle that runs code, a cut file, a zip bomb, a header that promises too much"
    memory = f"at most {found['megabytes']:.0f} MB of memory"
    outcome = f"{found['code ran']} ran code; {found['refused in one line']} refused in one line; {memory}"
    return [(what, f"{found['files']}", outcome)]


ROWS: dict[str, Callable[[dict[str, Any]], list[Row]]] = {
    "kills": _kills,
    "workers": _workers,
    "at-once": _at_once,
    "full-disks": _disks,
    "damage": _damage,
    "specs": _specs,
    "commands": _commands,
    "model-files": _model_files,
}


def _growth(results: dict[str, Any]) -> list[str]:
    if "growth" not in results:
        return []
    return [
        "## Memory and time",
        "",
        "One audit of the embedded network (PGD with 5 steps, one interpreter, cells of 50 images) in one process:",
        "",
        "| images | seconds | largest memory, MB |",
        "| ---: | ---: | ---: |",
        *(f"| {row['images']} | {row['seconds']} | {row['megabytes']:.0f} |" for row in results["growth"]),
        "",
        _speedup(results.get("speedup")),
        "",
    ]


def _unnoticed(damage: dict[str, Any], kind: str) -> int:
    return sum(line.startswith(kind) for line in damage["unnoticed"])


def _speedup(found: dict[str, float] | None) -> str:
    if found is None:
        return "Two workers were not compared with one, because the command had one core only; see [Scale](scale.md)."
    one, two = found["1 workers"], found["2 workers"]
    return f"With 400 images, one worker takes {one} seconds and two take {two}, with their start."
