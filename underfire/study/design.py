"""Define a study: the content of its folder, and the plan of trials for every annotator.

Each annotator sees half of the images without explanations and the other half with them, in two blocks that begin with
practice. In every group of four annotators, both orders of the blocks and both halves of the images occur equally
often, so that neither practice nor easy images favour one condition. The halves are balanced by the predicted class and
by whether the prediction is right.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from underfire.errors import InputError

SCHEMA = 1
BREAK_AFTER = 20
"""The number of counted trials of a block after which the annotator may rest."""

FILE = "study.json"
KEYS = "1234567890"
"""The keys that choose a class, in order."""


@dataclass(frozen=True)
class Choice:
    """A class that can be answered.

    Attributes:
        index: the class.
        name: the name that the annotator sees.
        key: the key that chooses it.
    """

    index: int
    name: str
    key: str


@dataclass(frozen=True)
class Item:
    """An image of the study; its pictures are `pictures/IIII.image.png` and `pictures/IIII.map.png`.

    Attributes:
        name: its name in the data.
        label: its true class, or None where that is unknown.
        prediction: the class that the model predicts, which is the right answer.
        confidence: the model's probability of that class.
    """

    name: str
    label: int | None
    prediction: int
    confidence: float

    @property
    def wrong(self) -> bool:
        """Return whether the prediction is known to be wrong."""
        return self.label is not None and self.label != self.prediction


@dataclass(frozen=True)
class Trial:
    """One image shown to one annotator.

    Attributes:
        item: the index of the image among the items of the study.
        explained: whether the explanation is shown too.
        practice: whether this is practice, after which the model's decision is shown.
        before: the notice before the trial: `"practice"` where practice begins, `"block"` where counted trials begin,
            `"break"` for a rest, `""` for none.
    """

    item: int
    explained: bool
    practice: bool
    before: str = ""


@dataclass(frozen=True)
class Study:
    """A prepared study.

    Attributes:
        folder: the folder of the study.
        about: the names of the `model`, the `interpreter`, its `options` and the `data`, for the page of results.
        seed: the seed of the order of the trials.
        choices: the classes that can be chosen.
        items: the images; the last `practice` of them are for practice.
        practice: the number of images for practice.
    """

    folder: Path
    about: dict[str, Any]
    seed: int
    choices: tuple[Choice, ...]
    items: tuple[Item, ...]
    practice: int

    @property
    def shown(self) -> int:
        """The number of images that count."""
        return len(self.items) - self.practice

    @cached_property
    def classes(self) -> frozenset[int]:
        """The classes that can be chosen."""
        return frozenset(choice.index for choice in self.choices)

    def name_of(self, index: int) -> str:
        """Return the name of a class that can be chosen."""
        return next(choice.name for choice in self.choices if choice.index == index)

    def picture(self, item: int, kind: str) -> Path:
        """Return the file of a picture; `kind` is `"image"` or `"map"`."""
        return self.folder / picture_name(item, kind)

    def check_pictures(self) -> None:
        """Raise InputError if a picture is missing."""
        files = [self.picture(item, kind) for item in range(len(self.items)) for kind in ("image", "map")]
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(files)} pictures are missing, such as {missing[0]}; prepare the study again"
            )

    def plan(self, annotator: int) -> tuple[Trial, ...]:
        """Return all trials of an annotator in order; annotators are numbered from 0."""
        halves = self._halves(annotator // 4)
        if annotator // 2 % 2:
            halves = halves[::-1]
        draw = random.Random(f"{self.seed}/order/{annotator}")
        practice = list(range(self.shown, len(self.items)))
        draw.shuffle(practice)
        trials = []
        for block, explained in enumerate((False, True) if annotator % 2 == 0 else (True, False)):
            first = practice[block::2]
            trials += [Trial(item, explained, True, "" if i else "practice") for i, item in enumerate(first)]
            order = list(halves[explained])
            draw.shuffle(order)
            for i, item in enumerate(order):
                notice = "break" if i % BREAK_AFTER == 0 else ""
                trials.append(Trial(item, explained, False, notice if i else "block"))
        return tuple(trials)

    def _halves(self, group: int) -> tuple[list[int], list[int]]:
        """Split the images into halves that are balanced by the predicted class and by whether it is right."""
        draw = random.Random(f"{self.seed}/halves/{group}")
        order = list(range(self.shown))
        draw.shuffle(order)
        order.sort(key=lambda i: (self.items[i].prediction, self.items[i].wrong))  # stable: random within a group
        return order[0::2], order[1::2]

    def write(self, folder: Path) -> None:
        """Write `study.json`."""
        content = {**asdict(self), "schema": SCHEMA}
        del content["folder"]
        (folder / FILE).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def picture_name(item: int, kind: str) -> str:
    """Return the name of a picture inside the folder of a study."""
    return f"pictures/{item:04d}.{kind}.png"


def read_study(folder: Path) -> Study:
    """Read the study that was prepared in a folder.

    Raises:
        InputError: there is none, it is damaged, or another version of underfire wrote it.
    """
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"no study in {str(folder)!r}; make one with: underfire study prepare IMAGES") from None
    except (ValueError, UnicodeDecodeError):
        raise InputError(f"{str(folder / FILE)!r} is damaged: it is not JSON; prepare the study again") from None
    try:
        if content.pop("schema") != SCHEMA:
            raise InputError(f"{str(folder)!r} was prepared by another version of underfire")
        choices = tuple(Choice(**choice) for choice in content.pop("choices"))
        items = tuple(Item(**item) for item in content.pop("items"))
        study = Study(folder, choices=choices, items=items, **content)
        if study.shown < 2 or not {item.prediction for item in items} <= study.classes:
            raise TypeError
        return study
    except (TypeError, KeyError, AttributeError):
        raise InputError(f"{str(folder / FILE)!r} is damaged: it is not a study; prepare it again") from None


def choices_of(names: dict[int, str]) -> tuple[Choice, ...]:
    """Assign a key to every class: its own digit if all names are digits, otherwise 1 to 9 and 0 in order."""
    digits = all(len(name) == 1 and name in KEYS for name in names.values())
    order = sorted(names)
    return tuple(Choice(c, names[c], names[c] if digits else KEYS[i]) for i, c in enumerate(order))
