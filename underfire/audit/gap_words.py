"""The prediction-interpretation gap in plain words, for the page, the command line and programs."""

from __future__ import annotations

from underfire.audit.gaps import Gap
from underfire.audit.sizes import percent, size, threat
from underfire.audit.standing import Standing

_MEANINGS = (
    (0.8, "the map says almost nothing about whether the class is right"),
    (0.5, "the map seldom shows that the class was changed"),
    (0.2, "the map often shows that the class was changed"),
    (0.0, "the map moves with the class and shows that it was changed"),
)


def known(gap: Gap | None, standing: Standing) -> bool:
    """Return whether a run has a gap: an attack changed the class of an image, and the run says something."""
    return gap is not None and gap.value.n > 0 and standing.level != "nothing"


def place(gap: Gap) -> str:
    """Return the norm and the sizes of a gap, such as `L∞ eps 2/255 to 8/255`, or `L∞ eps 8/255 only`."""
    sizes = f" to {size(gap.norm, gap.sizes[-1])}" if len(gap.sizes) > 1 else " only"
    return threat(gap.norm, gap.sizes[0]) + sizes


def meaning(gap: Gap | None, standing: Standing) -> str:
    """Return one plain sentence that says what the gap of a run means, or why it is not known."""
    if gap is None:
        return "Not measured: this run has no map of an attacked image."
    if standing.level == "nothing":
        return f"Not known. {standing.headline}."
    if not gap.value.n:
        return f"Not known: no attack changed the class of an image at {place(gap)}."
    kept = f"{percent(gap.value.value)} of its {gap.interpreter} map"
    if not gap.aimed:
        text = f"Where an attack changes the class of an image, it keeps {kept}"
        return f"{text}. No attack was aimed at this map; one that is may keep more."
    text = next(text for least, text in _MEANINGS if gap.value.value >= least)
    if standing.level == "blind":
        return (
            f"At least this much, because the attacks were blind: where an attack changes the class, it keeps {kept}."
        )
    return f"Where the class of an image can be changed, an attacker can keep {kept}: {text}."


def line(gap: Gap | None, standing: Standing) -> str:
    """Return the gap of a run with its interval, its place and its meaning, in one line."""
    value = ""
    if gap is not None and known(gap, standing):
        i = gap.value
        spread = f"95\u00a0% interval {i.low:.2f} to {i.high:.2f}, n = {i.n}" if i.n > 1 else "n = 1"
        value = f" {i.value:.2f} ({spread}; {gap.interpreter}, {place(gap)})"
    return f"Prediction-interpretation gap{value}: {meaning(gap, standing)}"
