"""Print the results of a study as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from underfire.cli.shared import OUT

if TYPE_CHECKING:
    from underfire.records import Interval
    from underfire.study.noticing import NoticingResults
    from underfire.study.results import Difference, StudyResults


def show(found: StudyResults | NoticingResults) -> None:
    """Print the results of a study as tables."""
    from underfire.study.noticing import NoticingResults

    if isinstance(found, NoticingResults):
        _show_noticing(found)
    else:
        _show_predicting(found)


def _show_predicting(found: StudyResults) -> None:
    from underfire.study.results import headline

    title, numbers = headline(found)
    OUT.print(f"{title}. {numbers}\n")
    a, b = found.pooled["without"], found.pooled["with"]
    table = Table("", "without", "with", "difference", box=None, header_style="dim", pad_edge=False)
    table.add_row("bits/s", *(_or_withheld(p.rate, p.why_rate) for p in (a, b)), _format_gain(found.rate))
    table.add_row("trust", *(_or_withheld(p.trust, p.why_trust) for p in (a, b)), _format_gain(found.trust))
    table.add_row("agree with the model", _format(a.agreement, ".0%"), _format(b.agreement, ".0%"))
    table.add_row("seconds (median)", f"{a.seconds:.2f}", f"{b.seconds:.2f}")
    table.add_row("answers", str(a.n), str(b.n))
    OUT.print(table)
    whys = {"bits/s": a.why_rate or b.why_rate, "trust": a.why_trust or b.why_trust, "difference": found.rate.why}
    for what, why in whys.items():
        if why:
            OUT.print(f"{what} withheld: {why}")
    if found.people:
        OUT.print()
        people = Table(
            "annotator",
            "answered",
            "first block",
            "agreement",
            "seconds",
            "code",
            box=None,
            header_style="dim",
            pad_edge=False,
        )
        for person in found.people:
            before, after = person.figures["without"], person.figures["with"]
            people.add_row(
                person.name,
                f"{person.answered}/{person.of}",
                "with" if person.explained_first else "without",
                f"{before.agreement.value:.0%} → {after.agreement.value:.0%}",
                f"{before.seconds:.2f} → {after.seconds:.2f}",
                person.code,
            )
        OUT.print(people)
    _caveats(found)


def _show_noticing(found: NoticingResults) -> None:
    from underfire.study.noticing import NAMES, headline

    title, numbers = headline(found)
    OUT.print(f"{title}. {numbers}\n")
    columns = ("inputs", "called attacked", "d′ against clean", "IoU with the clean map", "answers")
    table = Table(*columns, box=None, header_style="dim", pad_edge=False)
    for name, share in found.noticed.items():
        d = found.sensitivity.get(name)
        table.add_row(
            NAMES[name],
            _format(share, ".0%"),
            _or_withheld(d, found.why) if d else "",
            f"{found.iou[name]:.2f}",
            str(share.n),
        )
    OUT.print(table)
    for person in found.people:
        shares = ", ".join(f"{NAMES[name]} {share.value:.0%}" for name, share in person.noticed.items())
        code = f"; code {person.code}" if person.code else ""
        OUT.print(f"{person.name}: {person.answered}/{person.of}; called attacked: {shares}{code}")
    _caveats(found)


def _caveats(found: StudyResults | NoticingResults) -> None:
    """Print the answers that are left out, and the notes."""
    for reason, count in found.left_out.items():
        OUT.print(f"left out: {count} ({reason})")
    for note in found.notes:
        OUT.print(f"note: {note}")


def _format_gain(difference: Difference) -> str:
    return "withheld" if difference.why else _format(difference.value, "+.2f")


def _or_withheld(interval: Interval, why: str) -> str:
    return "withheld" if why else _format(interval)


def _format(interval: Interval, form: str = ".2f") -> str:
    if interval.low != interval.low:  # nan: no interval
        return f"{interval.value:{form}}"
    return f"{interval.value:{form}} [{interval.low:{form}}, {interval.high:{form}}]"
