"""Define a study: the content of its folder, and the plan of trials for every annotator.

Each annotator sees half of the images without explanations and the other half with them, in two blocks that begin with
practice. In every group of four annotators, both orders of the blocks and both halves of the images occur equally
often, so that neither practice nor easy images favour one condition. The halves are balanced by the predicted class and
by whether the prediction is right.

A study of noticing asks another question: has this input been attacked? Every image has a clean, a PGD and an ADV²
version. Each annotator sees one version of every image, and in every group of three annotators, each image occurs once
in each version.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from underfire.errors import InputError

SCHEMA = 1
BREAK_AFTER = 20
"""The number of counted trials of a block after which the annotator may rest."""

CONDITIONS = ("clean", "pgd", "adv2")
"""The versions of an image in a study of noticing, in the order of the items."""

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
        condition: the version of the image in a study of noticing, one of `CONDITIONS`; otherwise empty.
        shown_class: the name of the predicted class if the annotator sees it; otherwise empty.
        iou: the intersection over union of its map and the map of the clean image in a study of noticing.
        signed: whether its map has negative values, for the legend; None if an older version prepared the study.
    """

    name: str
    label: int | None
    prediction: int
    confidence: float
    condition: str = ""
    shown_class: str = ""
    iou: float = 1.0
    signed: bool | None = None

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
        items: the images; the last `practice` of them are for practice. In a study of noticing, the versions of an
            image follow each other.
        practice: the number of images for practice.
        noticing: whether annotators answer whether an input has been attacked, not which class is predicted.
        with_image: whether annotators see the image; without it, they see the map alone.
    """

    folder: Path
    about: dict[str, Any]
    seed: int
    choices: tuple[Choice, ...]
    items: tuple[Item, ...]
    practice: int
    noticing: bool = False
    with_image: bool = True

    @property
    def images(self) -> int:
        """The number of images, with those for practice."""
        return len(self.items) // (len(CONDITIONS) if self.noticing else 1)

    @property
    def shown(self) -> int:
        """The number of images that count."""
        return self.images - self.practice

    @cached_property
    def classes(self) -> frozenset[int]:
        """The classes that can be chosen."""
        return frozenset(choice.index for choice in self.choices)

    def name_of(self, index: int) -> str:
        """Return the name of a class that can be chosen."""
        return next(choice.name for choice in self.choices if choice.index == index)

    def right(self, item: int) -> int:
        """Return the right answer: the predicted class; in a study of noticing, 1 for an attacked input, else 0."""
        found = self.items[item]
        return int(found.condition != CONDITIONS[0]) if self.noticing else found.prediction

    def kinds(self, trial: Trial) -> tuple[str, ...]:
        """Return the kinds of pictures that a trial shows: `"image"`, `"map"` or both."""
        return (("image",) if self.with_image else ()) + (("map",) if trial.explained else ())

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
        draw = random.Random(f"{self.seed}/order/{annotator}")
        if self.noticing:
            counted, practice = self._versions(annotator)
            draw.shuffle(counted)
            draw.shuffle(practice)
            return tuple(_block(practice, counted, explained=True))
        halves = self._halves(annotator // 4)
        if annotator // 2 % 2:
            halves = halves[::-1]
        practice = list(range(self.shown, len(self.items)))
        draw.shuffle(practice)
        trials: list[Trial] = []
        for block, explained in enumerate((False, True) if annotator % 2 == 0 else (True, False)):
            order = list(halves[explained])
            draw.shuffle(order)
            trials += _block(practice[block::2], order, explained=explained)
        return tuple(trials)

    def _versions(self, annotator: int) -> tuple[list[int], list[int]]:
        """Return one version of every image that counts, and one of every image for practice, as items."""
        count = len(CONDITIONS)
        draw = random.Random(f"{self.seed}/versions/{annotator // count}")
        parts = list(range(self.shown)), list(range(self.shown, self.images))
        for part in parts:
            draw.shuffle(part)
        counted, practice = ([count * i + (k + annotator) % count for k, i in enumerate(part)] for part in parts)
        return counted, practice

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


def _block(practice: Iterable[int], counted: Iterable[int], *, explained: bool) -> Iterator[Trial]:
    """Yield the trials of a block: practice, then the counted items with breaks."""
    for i, item in enumerate(practice):
        yield Trial(item, explained, True, "" if i else "practice")
    for i, item in enumerate(counted):
        notice = "break" if i % BREAK_AFTER == 0 else ""
        yield Trial(item, explained, False, notice if i else "block")


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
            raise InputError(f"{str(folder)!r} was prepared by another version of underfire; prepare it again")
        choices = tuple(Choice(**choice) for choice in content.pop("choices"))
        items = tuple(Item(**item) for item in content.pop("items"))
        study = Study(folder, choices=choices, items=items, **content)
        if study.shown < 2 or not {study.right(i) for i in range(len(items))} <= study.classes:
            raise TypeError
        if study.noticing and [item.condition for item in items] != [*CONDITIONS] * study.images:
            raise TypeError
        return study
    except (TypeError, KeyError, AttributeError):
        raise InputError(f"{str(folder / FILE)!r} is damaged: it is not a study; prepare it again") from None


def choices_of(names: dict[int, str]) -> tuple[Choice, ...]:
    """Assign a key to every class: its own digit if all names are digits, otherwise 1 to 9 and 0 in order."""
    digits = all(len(name) == 1 and name in KEYS for name in names.values())
    order = sorted(names)
    return tuple(Choice(c, names[c], names[c] if digits else KEYS[i]) for i, c in enumerate(order))
