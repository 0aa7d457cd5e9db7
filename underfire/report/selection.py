"""Choose what the gallery shows: images, attacks and the order of the interpreters, those of the headline first."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from underfire.audit.comparison import leading
from underfire.audit.reading import AttackResult, largest
from underfire.audit.standing import accuracy_tone, worst_accuracy
from underfire.audit.summary import Findings
from underfire.report import words
from underfire.report.answers import worst_shift

_COLUMNS = 3


@dataclass(frozen=True)
class Basis:
    """The attacks and the interpreter that the headline rests on.

    Attributes:
        attacks: the attacks that the headline is about, each at one size.
        interpreter: the interpreter that it is about; empty if none.
        withstood: whether the headline says that the model withstands the attacks.
        believed: whether the headline is a verdict, and not that the figures of the run cannot be believed.
    """

    attacks: list[AttackResult]
    interpreter: str
    withstood: bool
    believed: bool = True


def basis(found: Findings) -> Basis:
    """Return what the headline rests on: the strongest attack, and the attacks compared by their maps."""
    worst, gap = worst_accuracy(found.robust), next(iter(leading(found.differences)), None)
    shift = None if gap else worst_shift([s for s in found.shifts if s.forges])
    places = [(worst.worst, worst.norm, worst.eps)] if worst else []
    if gap:
        places += [(label, gap.norm, gap.eps) for label in (gap.baseline, gap.label)]
    elif shift:
        places.append((shift.label, shift.norm, shift.eps))
    known = {(hit.label, hit.norm, hit.eps): hit for hit in found.attacks}
    attacks = [known[place] for place in dict.fromkeys(places) if place in known]
    about = gap or shift
    clean, believed = found.clean.value if found.clean else 1.0, found.standing.believable
    withstood = believed and worst is not None and accuracy_tone(worst.robust.value, clean) == "good"
    return Basis(attacks, about.interpreter if about else "", withstood, believed)


def attacks(found: Findings, of: Basis, aimed: Collection[str]) -> list[AttackResult]:
    """Return the attacks of the columns: those of the headline, then others aimed at a map; if none is, the strongest.

    Args:
        found: the findings of the run.
        of: what the headline rests on.
        aimed: the labels of the attacks that are aimed at a map.
    """
    shown = {hit.label for hit in of.attacks}
    ranked = sorted(largest(found.attacks), key=lambda h: (h.robust.value, -np.nan_to_num(h.confidence)))
    others = [hit for hit in ranked if hit.label not in shown and (hit.label in aimed or not aimed)]
    return [*of.attacks, *others][:_COLUMNS]


def told(of: Basis, *, shown: int, resting: int, right: int, wrong: int, left_out: int) -> str:
    """Return one sentence on what was chosen, and on what was left out and why.

    Args:
        of: what the headline rests on.
        shown: the number of images shown.
        resting: the number of them on which the headline rests.
        right: the number of images of the run that are classified correctly without an attack.
        wrong: the number of all other images of the run.
        left_out: the number of attacks without a column.
    """
    text = f"Shown: {shown} of the {right} images that the model classifies correctly without an attack"
    if of.attacks:
        why = ", because the headline rests on these" if resting and of.believed else ""
        text += f", {_which(of, resting, shown)}{why}"
    them = "them" if wrong > 1 else "it"
    parts = [
        f"{wrong} image{'s' * (wrong != 1)} that it gets wrong without an attack (no attack is to blame for {them})"
    ]
    others = f"{left_out} attack{'s' * (left_out != 1)} that the headline is not about"
    parts = (parts if wrong else []) + ([others] if left_out else [])
    return f"{text}; left out: {words.listed(parts) if parts else 'nothing'}."


def _which(of: Basis, resting: int, shown: int) -> str:
    """Return what the attacks of the headline did to the images that are shown.

    >>> from types import SimpleNamespace as Hit
    >>> fgsm = [Hit(label="FGSM")]
    >>> _which(Basis(fgsm, "", withstood=False), 8, 8), _which(Basis(fgsm, "", withstood=True), 3, 8)
    ('all of which are fooled by FGSM', 'first the 3 that withstand FGSM')
    """
    names = list(dict.fromkeys(hit.label for hit in of.attacks))
    one, several = ("withstands", "withstand") if of.withstood else ("is fooled by", "are fooled by")
    attacks = f"each of {words.listed(names)}" if len(names) > 1 else names[0]
    if not resting:
        return f"none of which {one} {attacks}"
    return f"{'all of which' if resting == shown else f'first the {resting} that'} {several} {attacks}"
