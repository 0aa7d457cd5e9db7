"""Several classifiers behind one defence, given as models or by their URIs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from underfire import models
from underfire.defenses.defended import Defense
from underfire.errors import InputError, ModelError
from underfire.model import Classifier, as_classifier

Version = Classifier | nn.Module | str
"""A classifier, a module, or the URI of a model, such as `zoo:resnet20_cifar10`."""


class Several(Defense):
    """A defence with several classifiers behind it: the defended one, and other versions.

    Args:
        undefended: the classifier that is defended.
        versions: the others.
        method: as for `Defense`.
        generator: as for `Defense`.
    """

    def __init__(
        self,
        undefended: Classifier,
        versions: Sequence[Classifier],
        method: Callable[..., Any],
        generator: Generator | None = None,
    ) -> None:
        super().__init__(undefended, method, generator)
        self.versions = nn.ModuleList(versions)

    @property
    def members(self) -> list[Classifier]:
        """All classifiers, beginning with the one that is defended."""
        others: Any = self.versions
        return [self.undefended, *others]


def opened(model: Classifier, versions: Sequence[Version], option: str = "versions") -> list[Classifier]:
    """Return the other versions of a model as classifiers on its device, in evaluation mode; `option` names them.

    Raises:
        ModelError: one cannot be loaded, or has other classes or another size of images. InputError: they are no list
            of models.
    """
    if isinstance(versions, (str, nn.Module)) or not isinstance(versions, Sequence):
        raise InputError(f"{option} must be a list of models or of their URIs, such as [zoo:resnet20_cifar10]")
    device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    found = []
    for version in versions:
        other = models.load(version) if isinstance(version, str) else as_classifier(version)
        if other.labels and model.labels and other.labels != model.labels:
            raise ModelError(f"{option} must have the same classes: {version!r:.80} has {len(other.labels)} others")
        if other.size and model.size and other.size != model.size:
            sizes = " and ".join(f"{height} x {width}" for height, width in (model.size, other.size))
            raise ModelError(f"{option} must take images of the same size, got {sizes}")
        found.append(other.to(device).eval())
    return found


def same_classes(answers: list[Tensor]) -> Tensor:
    """Return the logits of several classifiers as one tensor `[n, B, K]`.

    Raises:
        ModelError: the classifiers have different numbers of classes.
    """
    counts = [logits.shape[1] for logits in answers]
    if len(set(counts)) > 1:
        raise ModelError(f"versions must have the same number of classes, got {', '.join(map(str, counts))}")
    return torch.stack(answers)
