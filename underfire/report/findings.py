"""The findings of the report: one sentence for each attack and for each map that it is aimed at, and groups of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from underfire.audit.aims import MAP_CHANGED, aims_at_prediction
from underfire.audit.comparison import PAIRS, Difference, leading
from underfire.audit.map_shifts import MapShift
from underfire.audit.quadrants import Quadrants, control_of
from underfire.audit.reading import AttackResult, largest
from underfire.audit.standing import accuracy_tone
from underfire.audit.summary import Findings
from underfire.records import Interval
from underfire.report import words
from underfire.report.answers import capped, gain_tone

_HALF = 0.5  # the share of changed maps from which a finding is serious
_RANK = {"bad": 0, "warn": 1, "good": 2, "none": 3}
_SEVERITY = {"bad": "Serious", "warn": "Notable", "good": "Withstood", "none": "No verdict"}
_BLIND = "The attacks were blind and the true rate may be higher: "
_TOGETHER = {
    "fools": "fool the model",
    "fails": "fool no image",
    "untested": "had no image to attack",
    "keeps map": "change the class and keep the attacked map",
    "moves map": "keep the class and change the attacked map",
}


@dataclass(frozen=True)
class Finding:
    """One finding: a sentence with its rate and its MITRE ATLAS technique.

    Attributes:
        tone: the colour: `"bad"`, `"warn"`, `"good"` or `"none"` (no verdict).
        words: the sentence.
        rate: the rate behind it.
        atlas: the MITRE ATLAS technique of the attack; empty if it has none.
        event: what happened: `"fools"`, `"fails"` (no image is fooled), `"untested"`, `"keeps map"` or `"moves map"`.
        label: the label of the attack.
        threat: its norm and its size.
    """

    tone: str
    words: str
    rate: Interval
    atlas: str
    event: str
    label: str
    threat: str

    @property
    def severity(self) -> str:
        """The tone as a word."""
        return _SEVERITY[self.tone]


@dataclass(frozen=True)
class Group:
    """Findings of the same tone on the same event, in one sentence; a finding may be alone in its group."""

    words: str
    members: tuple[Finding, ...]

    @property
    def spread(self) -> str:
        """The lowest and the highest rate of the members."""
        rates = [words.percent(f.rate.value) for f in sorted(self.members, key=lambda f: f.rate.value)]
        return rates[0] if rates[0] == rates[-1] else f"{rates[0]} to {rates[-1]}"

    @property
    def tone(self) -> str:
        """The tone of all members."""
        return self.members[0].tone

    @property
    def severity(self) -> str:
        """The tone as a word."""
        return self.members[0].severity


def findings(found: Findings) -> list[Finding]:
    """Return a finding for each attack at its largest size and each map that an attack is aimed at, the worst first.

    If checks say that the attacks were blind, every sentence says so first.
    """
    result = [_fooled(hit, found) for hit in largest(found.attacks) if aims_at_prediction(hit.quadrant)]
    atlas = {hit.label: hit.atlas for hit in found.attacks}
    gaps = {(gap.label, gap.interpreter, gap.eps): gap for gap in leading(found.differences)}
    result += [
        _kept(shift, gaps.get((shift.label, shift.interpreter, shift.eps)), found, atlas.get(shift.label, ""))
        for shift in largest(s for s in found.shifts if s.forges)
    ]
    result += [_moved(q, found, atlas.get(q.label, "")) for q in largest(found.quadrants) if q.changes_map]
    if found.standing.level == "blind":
        result = [replace(finding, words=_BLIND + finding.words) for finding in result]
    return sorted(result, key=lambda f: (_RANK[f.tone], -f.rate.value))


def groups(found: Iterable[Finding]) -> list[Group]:
    """Return the findings in groups of the same tone and event, in their order."""
    same: dict[tuple[str, str], list[Finding]] = {}
    for finding in found:
        same.setdefault((finding.tone, finding.event), []).append(finding)
    return [Group(_summary(members), tuple(members)) for members in same.values()]


def _summary(members: Sequence[Finding]) -> str:
    """Return one sentence for a group; of one member, its own."""
    first = members[0]
    if len(members) == 1:
        return first.words
    places = list(dict.fromkeys(finding.threat for finding in members))
    where = f" at {places[0]}" if len(places) == 1 else ""
    blind = _BLIND if first.words.startswith(_BLIND) else ""
    return f"{blind}{len(members)} attacks {_TOGETHER[first.event]}{where}"


def _fooled(hit: AttackResult, found: Findings) -> Finding:
    """Return the finding on the classes after an attack."""
    clean, place = found.clean.value if found.clean else 1.0, words.threat(hit.norm, hit.eps)
    event = "untested" if hit.success.n == 0 else "fools" if hit.success.value else "fails"
    outcome = {"untested": "had no image to attack", "fools": "fools the model", "fails": "fools no image"}[event]
    tone = accuracy_tone(hit.robust.value, clean) if hit.eps > 0 and hit.success.n else "none"
    text = f"{hit.label} {outcome} at {place}{', towards a given class' if hit.targeted else ''}"
    return Finding(capped(tone, found.standing), text, hit.success, hit.atlas, event, hit.label, place)


def _kept(shift: MapShift, gap: Difference | None, found: Findings, atlas: str) -> Finding:
    """Return the finding on an attack that wants to change the class and to keep the map, against a plain attack."""
    place = words.threat(shift.norm, shift.eps)
    text = f"{shift.label} changes the class and keeps the {shift.interpreter} map at {place}"
    tone, rate = (gain_tone(gap), gap.plausible[0]) if gap else ("none", shift.plausible)
    if gap is None:
        text += "; not compared with a plain attack"
    else:
        text += f"; {gap.baseline} keeps it in {words.percent(gap.plausible[1].value)}"
    return Finding(capped(tone, found.standing), text, rate, atlas, "keeps map", shift.label, place)


def _moved(q: Quadrants, found: Findings, atlas: str) -> Finding:
    """Return the finding on an attack that wants to keep the prediction and to change the map, against noise."""
    rate, control, place = q.shares[MAP_CHANGED], control_of(q, found.quadrants), words.threat(q.norm, q.eps)
    text = f"{q.label} keeps the class and changes the {q.interpreter} map at {place}"
    tone = "none"
    if control is None:
        text += "; not compared with random noise"
    else:
        noise = control.shares[MAP_CHANGED]
        text += f"; {control.label} in {words.percent(noise.value)}"
        if min(rate.n, noise.n) >= PAIRS:
            tone = "good" if rate.low <= noise.high else "bad" if rate.value >= _HALF else "warn"
    return Finding(capped(tone, found.standing), text, rate, atlas, "moves map", q.label, place)
