"""Choose the images of a study, explain them, and write all pictures that annotators will see."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underfire.errors import DataError, InputError
from underfire.measures.prediction import confidence
from underfire.study.design import FILE, KEYS, Item, Study, choices_of, picture_name
from underfire.study.pictures import draw

if TYPE_CHECKING:
    from torch import Tensor

    from underfire.model import Classifier
    from underfire.records import Batch

_MORE = "; choose from more images with --from, if there are more"


def predict_items(model: Classifier, batches: Iterable[Batch], *, labelled: bool) -> list[Item]:
    """Return an item for every image, with the model's prediction, and with the label if `labelled`."""
    items = []
    for batch in batches:
        logits = model.predict(batch.x)
        predicted = logits.argmax(1)
        columns = (batch.ids, batch.y.tolist(), predicted.tolist(), confidence(logits, predicted).tolist())
        items += [Item(n, y if labelled else None, k, c) for n, y, k, c in zip(*columns, strict=True)]
    return items


def choose_items(
    items: Sequence[Item], *, n: int, practice: int, classes: int, mistakes: float | None, seed: int
) -> list[int]:
    """Return the indices of `n` images and of `practice` further ones, balanced over the predicted classes.

    Args:
        items: the images to choose from.
        n: the number of images that count, even.
        practice: the number of images for practice, even.
        classes: the most classes that an annotator chooses from; the most frequent predictions are taken.
        mistakes: the share of the `n` images whose prediction is wrong; None does not control it.
        seed: the seed of the draw.

    Raises:
        InputError: a number is odd or out of range. DataError: there are too few images, or of one class only.
    """
    check_numbers(n, practice, classes, mistakes)
    common = [k for k, _ in Counter(item.prediction for item in items).most_common(classes)]
    if len(common) < 2:
        raise DataError("the model predicts one class for every image; a study needs two predicted classes or more")
    order = [i for i, item in enumerate(items) if item.prediction in common]
    random.Random(f"{seed}/images").shuffle(order)
    if n + practice > len(order):
        raise DataError(
            f"--n {n} and --practice {practice} ask for {n + practice} images, but the model assigns only {len(order)} "
            f"of {len(items)} images to the {len(common)} most frequent classes{_MORE}"
        )
    if mistakes is None:
        chosen = _take_balanced(items, order, n)
    else:
        wanted = round(mistakes * n)
        wrong, right = ([i for i in order if items[i].wrong is flag] for flag in (True, False))
        if len(wrong) < wanted or len(right) < n - wanted:
            raise DataError(
                f"--mistakes {mistakes:g} asks for {wanted} images that the model gets wrong and {n - wanted} that it "
                f"gets right, but there are {len(wrong)} and {len(right)}{_MORE}"
            )
        chosen = _take_balanced(items, wrong, wanted) + _take_balanced(items, right, n - wanted)
    left = sorted(set(order) - set(chosen), key=order.index)
    return chosen + _take_balanced(items, left, practice)


def write(
    study: Study,
    places: Sequence[int],
    batches: Iterable[Batch],
    maps: Callable[[Batch, list[int], Tensor], Tensor],
    folder: Path,
) -> None:
    """Draw the chosen images and their explanations, and write the study.

    Args:
        study: the study with the chosen images.
        places: the index of each item among the images of `batches`.
        batches: the same images in the same order as in `predict_items`.
        maps: `(batch, rows, classes)` returns the maps `[M, 1, h, w]` of some images of a batch.
        folder: the folder to write into.
    """
    import torch

    wanted = {place: i for i, place in enumerate(places)}
    (folder / "pictures").mkdir()
    signed: dict[int, bool] = {}
    start = 0
    for batch in batches:
        here = [i for i in range(len(batch)) if start + i in wanted]
        if here:
            x = batch.x[here]
            items = [wanted[start + i] for i in here]
            predicted = torch.tensor([study.items[i].prediction for i in items], device=x.device)
            for i, image, m in zip(items, x, maps(batch, here, predicted).detach(), strict=True):
                signed[i] = draw(image, m, i, folder)
        start += len(batch)
    drawn = tuple(replace(item, signed=signed[i]) for i, item in enumerate(study.items))
    replace(study, items=drawn).write(folder)


def make_study(
    items: Sequence[Item],
    name_of: Callable[[int], str],
    *,
    folder: Path,
    about: dict[str, Any],
    seed: int,
    practice: int,
) -> Study:
    """Return the study of the chosen images, the last `practice` of them for practice."""
    names = {item.prediction: name_of(item.prediction) for item in items}
    return Study(folder, about, seed, choices_of(names), tuple(items), practice)


def files(n: int, practice: int) -> list[str]:
    """Return the names of all files of a study."""
    return [*(picture_name(i, kind) for i in range(n + practice) for kind in ("image", "map")), FILE]


def _take_balanced(items: Sequence[Item], order: Sequence[int], n: int) -> list[int]:
    """Return the first `n` indices of `order` when the predicted classes take turns."""
    by_class: dict[int, list[int]] = {}
    for i in order:
        by_class.setdefault(items[i].prediction, []).append(i)
    turn = {i: k for queue in by_class.values() for k, i in enumerate(queue)}
    return sorted(order, key=lambda i: turn[i])[:n]


def check_numbers(n: int, practice: int, classes: int, mistakes: float | None) -> None:
    """Raise InputError if a number for `choose_items` is odd or out of range."""
    if n < 4 or n % 2:
        raise InputError(f"--n must be even and at least 4, because half of the images have explanations, got {n}")
    if practice < 0 or practice % 2:
        raise InputError(f"--practice must be even and not negative, half for each part, got {practice}")
    if not 2 <= classes <= len(KEYS):
        raise InputError(f"--classes must lie between 2 and {len(KEYS)}, one key each, got {classes}")
    if mistakes is not None and not 0 <= mistakes <= 1:
        raise InputError(f"--mistakes must be a share between 0 and 1, got {mistakes:g}")
