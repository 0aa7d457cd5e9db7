"""Compare every claim of the paper on ADV² and of its talk with the measurements of the experiments."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from underfire.errors import DataError
from underfire.reproductions.adv2.claim_list import CLAIMS, Claim
from underfire.reproductions.adv2.comparisons import Comparison, Results
from underfire.reproductions.adv2.table import SOURCE
from underfire.reproductions.registry import Outcome, Setting, table

NEEDS_DATA = False  # it reads the results of other experiments only
_HOW = """A claim *holds* if every comparison holds, in every experiment that measured it, and *holds in part* if some
do. Of each experiment and each kind of figure, the table of a claim shows the least favourable comparison, with its
95 % interval; the page of the experiment has all. A limit is compared with the estimate, as in the paper; where a claim
says *lower* or *higher* without a limit, the interval decides. The paper's networks are a ResNet-50 and a DenseNet-169,
whose weights are not available here."""
_NAMED = 4  # failed comparisons that are named


def run(setting: Setting) -> Outcome:
    """Read the results of the experiments in the output folder; nothing is attacked here."""
    rows: list[list[str]] = []
    sections: list[str] = []
    results: dict[str, Any] = {}
    for claim in CLAIMS:
        read = {name: _read(setting.out, name) for name in claim.experiments}
        found = {name: _compare(claim, name, known) for name, known in read.items() if known is not None}
        every = [comparison for one in found.values() for comparison in one]
        said = _verdict(every)
        held = f"{sum(one.holds for one in every)} of {len(every)}" if every else "–"
        rows.append([claim.name, claim.text, said, held])
        sections.append(_section(claim, found, said))
        results[claim.name] = {
            "verdict": said,
            "comparisons": {
                name: [{"what": c.what, "where": c.where, "figures": c.figures, "holds": c.holds} for c in one]
                for name, one in found.items()
            },
        }
    return Outcome(
        title="The claims on ADV²: the paper's figures and ours",
        source=f"{SOURCE}, and the authors' talk",
        spec={"experiments": sorted({name for claim in CLAIMS for name in claim.experiments})},
        columns=("claim", "what it says", "verdict", "comparisons that hold"),
        rows=rows,
        notes=[_HOW, *sections],
        results=results,
    )


def _section(claim: Claim, found: Mapping[str, Sequence[Comparison]], said: str) -> str:
    """Return the section of a claim: the paper's figures, when it holds, and the least favourable figures here."""
    lines = [f"## {claim.name}", "", f"{claim.text} **{said[:1].upper()}{said[1:]}.**", ""]
    lines += [f"* In the paper: {claim.published}.", f"* Here it holds if: {claim.wanted}.", ""]
    rows = [
        (name, one.what, one.figures, one.where, "yes" if one.holds else "**no**")
        for name, comparisons in found.items()
        for one in _least_favourable(comparisons)
    ]
    if rows:
        lines += [table(("experiment", "figure", "ours, the least favourable", "of", "holds"), rows), ""]
    every = [comparison for one in found.values() for comparison in one]
    return "\n".join([*lines, _reason(claim, every)]).strip()


def _compare(claim: Claim, name: str, results: Results) -> list[Comparison]:
    """Return the comparisons of a claim in the results of one experiment.

    Raises:
        DataError: the file is of another version, so that figures are missing.
    """
    try:
        return list(claim.compare(results))
    except (KeyError, TypeError, AttributeError, ValueError, StopIteration, RuntimeError, ZeroDivisionError) as error:
        fault = f"{name}.json lacks the figures for {claim.name}"
        raise DataError(f"{fault} ({type(error).__name__}: {error}); run {name} again") from error


def _least_favourable(found: Sequence[Comparison]) -> list[Comparison]:
    """Return the least favourable comparison of each kind of figure."""
    kinds: dict[str, Comparison] = {}
    for one in found:
        if one.what not in kinds or _room(one) < _room(kinds[one.what]):
            kinds[one.what] = one
    return list(kinds.values())


def _room(one: Comparison) -> float:
    return -math.inf if math.isnan(one.room) else one.room


def _verdict(found: Sequence[Comparison]) -> str:
    """Return the verdict on a claim from the comparisons of all experiments."""
    held = [one.holds for one in found]
    if not held:
        return "not measured"
    return "holds" if all(held) else "holds in part" if any(held) else "does not hold"


def _reason(claim: Claim, found: Sequence[Comparison]) -> str:
    """Return how many comparisons hold, those that fail, the worst first, and what differs here from the paper."""
    if not found:
        return ""
    failed = sorted((one for one in found if not one.holds), key=_room)
    if not failed:
        return f"All {len(found)} comparisons hold."
    text = f"{len(found) - len(failed)} of {len(found)} comparisons hold"
    named = "; ".join(f"{one.what} of {one.where}" for one in failed[:_NAMED])
    more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    return f"{text}; not: {named}{more}. {claim.differs}"


def _read(folder: Path, name: str) -> Results | None:
    """Return the results of an experiment in the output folder; None without any, or if they are of a quick run."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    document = json.loads(path.read_text(encoding="utf-8"))
    found: Mapping[str, Any] = document["results"]
    return None if document.get("scale", "quick") == "quick" else found
