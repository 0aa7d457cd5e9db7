"""Attack through a defence: average over its random draws (EOT), with a gradient where it has none (BPDA).

Source: Athalye, Carlini and Wagner, Obfuscated Gradients Give a False Sense of Security, ICML 2018.
"""

from __future__ import annotations

from torch import nn

from underfire.defenses.defended import Defended
from underfire.errors import InputError, shown
from underfire.model import Classifier
from underfire.validate import at_least_one


def through(model: Classifier, *, bpda: bool = True, samples: int = 10, seed: int = 1) -> Defended:
    """Return the form of a defended classifier that an attack differentiates; every attack takes it as its model.

    It shares the weights. Its answers differ from those of `model` by the random draws: their logits are the logarithm
    of the probabilities averaged over the draws. The draws have a seed of their own, because an attacker does not know
    those of the defender.

    Args:
        model: a classifier with at least one defence.
        bpda: replace the gradient of a step that has none by that of the defence's rule; the docstring of each defence
            names its rule. Without it, a backward pass through such a step raises Unsupported.
        samples: number of draws over which each pass averages, if a defence is random, in place of the number over
            which the defence itself averages; a pass costs as many passes of the classifier.
        seed: seed of the draws.

    Raises:
        InputError: the model has no defence, or `samples` is below 1.
    """
    at_least_one(samples=samples)
    if not isinstance(model, Defended):
        raise InputError(
            f"through needs a defended classifier, such as underfire.defenses.jpeg(model), got {shown(model, 60)}"
        )
    made = _variant(model, bpda)
    made.module.samples = samples
    return made.redraw(seed)


def _variant(model: Defended, bpda: bool) -> Defended:
    """Return a copy of a defended classifier, and of the defences inside it, that shares its weights."""

    def copied(child: nn.Module) -> nn.Module:
        if isinstance(child, nn.ModuleList):
            return nn.ModuleList(copied(part) for part in child)
        return _variant(child, bpda) if isinstance(child, Defended) else child

    children = {name: copied(child) for name, child in model.module.named_children()}
    return type(model)(model.module.variant(bpda=bpda, samples=1, **children))
