"""Attack the images of a study of noticing, and draw the clean, PGD and ADV² version of each with its map."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from underfire import figures
from underfire.errors import DataError, InputError
from underfire.measures.maps import map_iou
from underfire.measures.prediction import confidence
from underfire.study.design import CONDITIONS, Choice, Item, picture_name
from underfire.study.prepare import SIDE

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


def draw_versions(
    model: Classifier,
    batches: Iterable[Batch],
    explain: Callable[[Tensor, Tensor], Tensor],
    attacks: tuple[Callable[..., Tensor], Callable[..., Tensor]],
    *,
    count: int,
    with_image: bool,
    folder: Path,
) -> list[Item]:
    """Draw the three versions of the first `count` images that both attacks fool, and return an item for each.

    ADV² aims at the class that PGD reached, so that both versions show the same predicted class. Images that the model
    gets wrong before the attack are left out.

    Args:
        model: the classifier.
        batches: the images to choose from.
        explain: returns the maps `[B, 1, h, w]` of images and classes.
        attacks: PGD and ADV², each `(model, x, y, goal=...) -> x'`.
        count: the number of images.
        with_image: whether the map is drawn over its input; otherwise it is drawn on black.
        folder: the folder of the study, into whose `pictures` the pictures are written.

    Raises:
        DataError: there are too few such images.
    """
    items: list[Item] = []
    (folder / "pictures").mkdir()
    for batch in batches:
        # classify, and attack what is classified correctly
        x, predicted = batch.x, model.predict(batch.x).argmax(1)
        keep = ((batch.y == predicted) | (batch.y < 0)).nonzero()[:, 0]
        names = [batch.ids[i] for i in keep.tolist()]
        x, predicted = x[keep], predicted[keep]
        pgd, adv2 = attacks
        x_pgd = pgd(model, x, predicted, goal=None) if len(x) else x
        goal = model.predict(x_pgd).argmax(1) if len(x) else predicted
        fooled = (goal != predicted).nonzero()[:, 0]
        if not len(fooled):
            continue
        names, labels = [names[i] for i in fooled.tolist()], batch.y[keep][fooled].tolist()
        x, x_pgd, predicted, goal = x[fooled], x_pgd[fooled], predicted[fooled], goal[fooled]
        x_adv = adv2(model, x, predicted, goal=goal)
        # explain every version for its predicted class
        versions = dict(zip(CONDITIONS, (x, x_pgd, x_adv), strict=True))
        logits = {name: model.predict(v) for name, v in versions.items()}
        classes = {name: v.argmax(1) for name, v in logits.items()}
        maps = {name: explain(v, classes[name]).detach() for name, v in versions.items()}
        ious = {name: map_iou(maps[name], maps["clean"]).tolist() for name in CONDITIONS}
        sure = {name: confidence(logits[name], classes[name]).tolist() for name in CONDITIONS}
        # draw the versions of the images that both attacks fool
        for i in (classes["adv2"] == goal).nonzero()[:, 0].tolist():
            for name, version in versions.items():
                at, k = len(items), int(classes[name][i])
                below = version[i] if with_image else version[i].new_zeros(version[i].shape)
                figures.save(version[i], folder / picture_name(at, "image"), at_least=SIDE)
                figures.save(figures.heatmap(maps[name][i], below), folder / picture_name(at, "map"), at_least=SIDE)
                label = labels[i] if labels[i] >= 0 else None
                items.append(Item(names[i], label, k, sure[name][i], name, model.name_of(k), ious[name][i]))
            if len(items) == count * len(CONDITIONS):
                return items
    found = len(items) // len(CONDITIONS)
    raise DataError(
        f"--n and --practice ask for {count} images that PGD and ADV² both fool, and there are {found}; "
        "choose from more images with --from, or a larger size with --noticing"
    )
