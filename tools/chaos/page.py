"""Write `docs/reliability.md` from the results."""

from __future__ import annotations

from typing import Any

NOTHING = "none"


def page(results: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    kills, once, workers = results["kills"], results["at once"], results["workers"]
    disk, damage, specs = results["full disks"], results["damage"], results["specs"]
    commands, models, growth = results["commands"], results["model files"], results["growth"]
    count = sum(kills["kills"].values())
    names = ", ".join(f"{number} {name}" for name, number in kills["kills"].items())
    rows = [
        (
            f"A run is killed at a random moment ({names}), and continued until it is done",
            f"{count} kills of {kills['runs']} runs",
            (
                f"{kills['lost']} finished cells lost, {kills['torn']} torn, {kills['refused']} runs refused, "
                f"{kills['different']} results differ"
            ),
        ),
        (
            "A worker process is killed",
            f"{workers['workers']}",
            f"{workers['said']} said so in one line",
        ),
        (
            "A run with worker processes is killed",
            f"{workers['parents']}",
            f"{workers['left']} left a worker behind; after all: {workers['different']} results differ",
        ),
        (
            f"{once['together']} runs of one audit in one folder at once",
            f"{once['rounds']}",
            f"{once['failed']} failed, {once['torn']} cells torn, {once['different']} results differ",
        ),
        (
            "The disk is full, or a file may not grow",
            f"{disk['disks']} disks, {disk['files']} limits",
            (
                f"{disk['one line']} ended in one line and {disk['finished']} had room enough; with more room: "
                f"{disk['torn']} cells torn, {disk['different']} results differ"
            ),
        ),
        (
            f"One bit of one file of a run is flipped ({damage['files']} files)",
            f"{damage['bits']}",
            f"{damage['bits'] - _unnoticed(damage, 'bits')} noticed",
        ),
        (
            "A file of a run is cut, or deleted",
            f"{damage['cut']}, {damage['deleted']}",
            f"{damage['cut'] - _unnoticed(damage, 'cut')}, {damage['deleted'] - _unnoticed(damage, 'deleted')} noticed",
        ),
        (
            "Five files of a run are damaged; the audit is run again",
            f"{damage['repairs']}",
            f"{damage['repaired']} results equal to those before",
        ),
        (
            "A spec is mutated, in its values or in its text",
            f"{specs['specs']}",
            (
                f"{specs['refused']} refused in one line, {specs['accepted']} still valid, {len(specs['crashed'])} "
                f"tracebacks, {specs['slow']} took more than 20 seconds"
            ),
        ),
        (
            "A wrong command line",
            f"{commands['commands']}",
            f"{commands['refused in one line']} refused in one line with exit code 2",
        ),
        (
            "A hostile model file: a pickle that runs code, a cut file, a zip bomb, a header that promises too much",
            f"{models['files']}",
            (
                f"{models['code ran']} ran code; {models['refused in one line']} refused in one line; "
                f"at most {models['megabytes']:.0f} MB of memory"
            ),
        ),
    ]
    text = [
        "# Reliability",
        "",
        "What an audit survives, as `make chaos` measured it. The command kills runs, fills disks, flips bits and",
        "feeds hostile files to the program. All random choices come from one seed; how many fit into the time",
        "depends on the machine.",
        "",
        (
            f"Seed {results['seed']}, {results['seconds']} seconds, {results['cores']} core(s), underfire "
            f"{results['underfire']}, Python {results['python']}, torch {results['torch']}. The numbers are in"
        ),
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
        "## Memory and time",
        "",
        "One audit of the embedded network (PGD with 5 steps, one interpreter, cells of 50 images) in one process:",
        "",
        "| images | seconds | largest memory, MB |",
        "| ---: | ---: | ---: |",
        *(f"| {row['images']} | {row['seconds']} | {row['megabytes']:.0f} |" for row in growth),
        "",
        _speedup(results["speedup"]),
        "",
        "## What was not as it should be",
        "",
    ]
    wrong = [
        *damage["unnoticed"],
        *(f"a spec: {line}" for line in specs["crashed"][:10]),
        *(f"a command line: {line}" for line in commands["otherwise"]),
        *(f"a model file: {line}" for line in models["otherwise"]),
    ]
    text += [f"* `{line.replace('`', '')}`" for line in wrong] or [f"In this run: {NOTHING}."]
    text += [
        "",
        "## Limits",
        "",
        "A spec may have 500,000 bytes, 100,000 keys and values (an alias counts as often as it is used), and 1,000",
        "attacks, sizes of an attack, interpreters, measures, seeds and gates. Counts are at most 1,000,000,000, and",
        "seeds at most 2⁶³ − 1. A value in an error message is cut to 200 characters. Before the first cell, an audit",
        "says how long its plan takes at most.",
    ]
    return "\n".join(text) + "\n"


def _unnoticed(damage: dict[str, Any], kind: str) -> int:
    return sum(line.startswith(kind) for line in damage["unnoticed"])


def _speedup(found: dict[str, float] | None) -> str:
    if found is None:
        return "Two workers were not compared with one, because the command had one core only; see [Scale](scale.md)."
    one, two = found["1 workers"], found["2 workers"]
    return f"With 800 images, one worker takes {one} seconds and two take {two}, with their start."
