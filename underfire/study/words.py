"""Say to annotators what they see, what they are asked, and where they are in the study."""

from __future__ import annotations

import re
from typing import Any

from underfire.study.design import Study, Trial

QUESTIONS = {False: "What does the program say it is?", True: "Has this input been attacked?"}
"""The question of each trial, by whether the study is one of noticing."""

RIGHT_ANSWER = {False: "the program says", True: "the right answer is"}
"""The words before the right answer after practice, by whether the study is one of noticing."""

_TASKS = {
    False: "Say which class the program chooses, even where you would choose another. Be quick, but be right.",
    True: "Say whether somebody has changed the input to mislead the program. Be quick, but be right.",
}
_TITLES = {False: "images only", True: "images with explanations"}
_DESCRIPTIONS = {
    False: "You will see one image at a time.",
    True: "Beside each image you will see it again, with colours where it was important for the program's decision.",
}
_MAP_ALONE = "You will see where an image was important for the program's decision, but not the image itself."
_CLASS = "Above it stands the class that the program chose."


LEGENDS = {False: ("not important", "important"), True: ("against the decision", "for the decision")}
"""The words at both ends of the colours of a map, by whether the map has negative values."""


def legend(study: Study, trial: Trial) -> dict[str, Any] | None:
    """Return the legend of the map of a trial: `signed`, `low` and `high`; or None if no map is shown."""
    signed = study.items[trial.item].signed
    if signed is None or not trial.explained:
        return None
    low, high = LEGENDS[signed]
    return {"signed": signed, "low": low, "high": high}


def statement(text: str) -> tuple[str, ...]:
    """Return the paragraphs of a text, which empty lines separate."""
    return tuple(part.strip() for part in re.split(r"\n\s*\n", text) if part.strip())


def description(study: Study, trial: Trial) -> str:
    """Return a sentence about what a trial shows."""
    shows = _DESCRIPTIONS[trial.explained] if study.with_image else _MAP_ALONE
    return f"{shows} {_CLASS}" if study.noticing else shows


def notice(study: Study, trial: Trial, plan: tuple[Trial, ...]) -> dict[str, Any] | None:
    """Return title and paragraphs of the notice that precedes a trial, or None."""
    if trial.before == "practice" or (trial.before == "block" and not study.practice):
        part = "First part" if trial.explained == plan[0].explained else "Second part"
        title = QUESTIONS[True] if study.noticing else f"{part}: {_TITLES[trial.explained]}"
        told = "whether your answer is right" if study.noticing else "what the program chose"
        practice = [f"You begin with practice: after each answer you see {told}."] if trial.practice else []
        return {"title": title, "text": [description(study, trial), _TASKS[study.noticing], *practice]}
    if trial.before == "block":
        what = "the right answer" if study.noticing else "the program's choice"
        return {"title": "Practice is over", "text": [f"From now on your answers count, and {what} is not shown."]}
    if trial.before == "break":
        return {"title": "Have a break", "text": ["Rest as long as you like: no time is measured now."]}
    return None
