"""Open data for a model, with labels that are its classes, and find labels that are in a wrong order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from torch import Tensor

from underfire import data
from underfire.classes import imagenet, match
from underfire.errors import ModelError
from underfire.hooks import channels_of
from underfire.model import Classifier

_SHARE = 0.6  # the share of the images of a class that the model must answer as the other class
_FEWEST = 2  # the fewest images of each class
_FEWEST_OF_TWO = 6  # the fewest swapped images of a model of two classes, which may also be wrong by chance


def open_data(
    uri: str,
    model: Classifier,
    *,
    n: int | None = None,
    seed: int = 0,
    names: Sequence[str] | Mapping[str, str] | None = None,
) -> data.Dataset:
    """Open data for a model, with labels that are the model's classes.

    Image files are read as grey for a model of one channel. Classes are compared by name where the data and the model
    have names. If `names` are given, they name the classes of the data first, as in `Dataset.named`. Images without
    labels get the model's own answers.

    Args:
        uri: the data, as in `underfire.data.load`; also `n` and `seed`.
        model: the model; `answered_by` keeps it.
        n: number of images to draw; None takes all.
        seed: the seed of the draw.
        names: names for the classes of the data.

    Raises:
        DataError: the data cannot be opened, or a class of it is not one of the model's.
    """
    return fit_labels(data.load(uri, n=n, seed=seed, channels=channels_of(model)), model, names)


def fit_labels(
    images: data.Dataset, model: Classifier, names: Sequence[str] | Mapping[str, str] | None = None
) -> data.Dataset:
    """Return data with labels that are the model's classes, as `open_data` does.

    Raises:
        DataError: a class of the data is not one of the model's.
    """
    device = model.mean.device
    if names is not None:
        images = images.named(names)
    labels, usual = model.labels, tuple(imagenet().values())
    named = images.labelled and images.labels and not any(name.isdecimal() for name in images.labels)
    # a model without class names gets those of ImageNet, if it has as many outputs and the data has such names
    if labels is None and named and None not in match(images.labels or (), usual):
        outputs = model.predict(images[:1].x.to(device)).shape[1]
        labels = usual if outputs == len(usual) else None
    images = images.ordered_as(labels)
    return images if images.labelled else images.answered_by(lambda x: model.predict(x.to(device)).argmax(1).cpu())


def check_swapped(logits: Tensor, y: Tensor, names: Sequence[str] | None) -> None:
    """Raise ModelError if the model swaps two classes: it answers most images of each as the other one.

    Nothing is raised for a model that is also wrong on most images of the other classes.

    Args:
        logits: logits of the model, `[n, K]`.
        y: labels, int64 `[n]`.
        names: names of the classes, or None.
    """
    counts, pairs = Counter(y.tolist()), Counter(zip(y.tolist(), logits.argmax(1).tolist(), strict=True))
    right = {k: pairs[k, k] for k in counts}
    for (i, j), crossed in sorted(pairs.items()):
        back = pairs[j, i]
        others = len(y) - counts[i] - counts[j]
        if 2 * (sum(right.values()) - right.get(i, 0) - right.get(j, 0)) < others:
            continue  # the model is wrong on other classes, too
        enough = min(counts[i], counts[j]) >= _FEWEST and (logits.shape[1] > 2 or crossed + back >= _FEWEST_OF_TWO)
        if i < j and enough and crossed >= _SHARE * counts[i] and back >= _SHARE * counts[j]:
            first, second = (f"class {k}" + (f" ({names[k]})" if names else "") for k in (i, j))
            raise ModelError(
                f"the model answers {second} for {crossed} of {counts[i]} images of {first}, and {first} for {back} of "
                f"{counts[j]} images of {second}: are the two swapped? `classes` under `data` and `labels` under "
                "`model` name them"
            )
