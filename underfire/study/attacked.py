"""Attack the images of a study of noticing, and draw the clean, PGD and ADV² version of each with its map."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from underfire.errors import DataError, InputError
from underfire.measures.maps import map_iou
from underfire.measures.prediction import confidence
from underfire.study.design import CONDITIONS, Choice, Item
from underfire.study.pictures import draw as draw_pictures

if TYPE_CHECKING:
    from torch import Tensor

    from underfire.model import Classifier
    from underfire.records import Batch

CHOICES = (Choice(1, "attacked", "1"), Choice(0, "not attacked", "2"))
"""The answers of a study of noticing."""


def check_counts(n: int, practice: int) -> None:
    """Raise InputError if there are too few images for a study of noticing."""
    if n < len(CONDITIONS) or practice < 0:
        raise InputError(f"--noticing needs --n of at least {len(CONDITIONS)} and --practice of at least 0")


@dataclass(frozen=True)
class Versions:
    """Images in the three versions of a study of noticing.

    Attributes:
        ids: the names of the images.
        labels: their labels, int64 `[B]`; -1 where there is none.
        images: the images `[B, C, H, W]` by condition.
        logits: the logits `[B, K]` by condition.
        maps: the maps `[B, 1, h, w]` of the predicted classes by condition.
    """

    ids: Sequence[str]
    labels: Tensor
    images: Mapping[str, Tensor]
    logits: Mapping[str, Tensor]
    maps: Mapping[str, Tensor]

    def usable(self) -> list[int]:
        """Return which images are classified correctly before, and as the same wrong class after both attacks."""
        clean, pgd, adv2 = (self.logits[name].argmax(1) for name in CONDITIONS)
        right = (self.labels == clean) | (self.labels < 0)
        return (right & (pgd != clean) & (adv2 == pgd)).nonzero()[:, 0].tolist()


def draw(
    found: Iterable[Versions], name_of: Callable[[int], str], *, count: int, with_image: bool, folder: Path, advice: str
) -> list[Item]:
    """Draw the three versions of the first `count` usable images, and return an item for each.

    Args:
        found: images in their versions.
        name_of: returns the name of a class.
        count: the number of images.
        with_image: whether the map is drawn over its input; otherwise it is drawn on black.
        folder: the folder of the study, into whose `pictures` the pictures are written.
        advice: what a user can do about too few images, for the message.

    Raises:
        DataError: there are too few such images.
    """
    items: list[Item] = []
    (folder / "pictures").mkdir()
    for some in found:
        classes = {name: logits.argmax(1) for name, logits in some.logits.items()}
        ious = {name: map_iou(some.maps[name], some.maps["clean"]).tolist() for name in CONDITIONS}
        sure = {name: confidence(some.logits[name], classes[name]).tolist() for name in CONDITIONS}
        for i in some.usable():
            for name in CONDITIONS:
                at, k = len(items), int(classes[name][i])
                signed = draw_pictures(some.images[name][i], some.maps[name][i], at, folder, map_alone=not with_image)
                label = int(some.labels[i])
                shown = None if label < 0 else label
                items.append(Item(some.ids[i], shown, k, sure[name][i], name, name_of(k), ious[name][i], signed))
            if len(items) == count * len(CONDITIONS):
                return items
    number = len(items) // len(CONDITIONS)
    raise DataError(
        f"--n and --practice ask for {count} images that PGD and ADV² both fool, with the same class, and there are "
        f"{number}; {advice}"
    )


def attack_versions(
    model: Classifier,
    batches: Iterable[Batch],
    explain: Callable[[Tensor, Tensor], Tensor],
    attacks: tuple[Callable[..., Tensor], Callable[..., Tensor]],
) -> Iterator[Versions]:
    """Yield the versions of the images that PGD fools; ADV² aims at the class that PGD reached.

    Images that the model gets wrong before the attack are left out.

    Args:
        model: the classifier.
        batches: the images to choose from.
        explain: returns the maps `[B, 1, h, w]` of images and classes.
        attacks: PGD and ADV², each `(model, x, y, goal=...) -> x'`.
    """
    pgd, adv2 = attacks
    for batch in batches:
        # classify, and attack what is classified correctly
        predicted = model.predict(batch.x).argmax(1)
        keep = ((batch.y == predicted) | (batch.y < 0)).nonzero()[:, 0]
        if not len(keep):
            continue
        x_pgd = pgd(model, batch.x[keep], predicted[keep], goal=None)
        goal = model.predict(x_pgd).argmax(1)
        fooled = (goal != predicted[keep]).nonzero()[:, 0]
        if not len(fooled):
            continue
        rows, x_pgd, goal = keep[fooled], x_pgd[fooled], goal[fooled]
        x = batch.x[rows]
        x_adv = adv2(model, x, predicted[rows], goal=goal)
        # explain every version for its predicted class
        images = dict(zip(CONDITIONS, (x, x_pgd, x_adv), strict=True))
        logits = {name: model.predict(version) for name, version in images.items()}
        maps = {name: explain(version, logits[name].argmax(1)).detach() for name, version in images.items()}
        yield Versions([batch.ids[i] for i in rows.tolist()], batch.y[rows], images, logits, maps)
