"""AutoAttack (Croce and Hein, Reliable Evaluation of Adversarial Robustness with an Ensemble of Attacks, ICML 2020).

Under L1: as in Croce and Hein, Mind the Box: l1-APGD for Sparse Adversarial Attacks, ICML 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.queries import Queries
from underfire.ascent.rows import in_parts
from underfire.ascent.step import succeeded
from underfire.ascent.threats import ball
from underfire.attacks.apgd import apgd
from underfire.attacks.fab import fab
from underfire.attacks.square import square
from underfire.catalog import card
from underfire.domains import domain_of
from underfire.errors import Unsupported
from underfire.hooks import frozen
from underfire.validate import at_least_one, check_classes, default_generator


@card(
    "attack",
    paper="Croce and Hein, Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free "
    "Attacks, ICML 2020",
    knowledge="white-box",
    norms=("linf", "l2", "l1"),
    goals=("untargeted",),
    random=True,
    atlas="AML.T0043.000",
    quick={"steps": 1, "queries": 10},
)
def autoattack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 8 / 255,
    steps: int = 100,
    queries: int | Tensor = 5000,
    candidates: int = 9,
    patience: int | None = 20,
    chunk: int | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Run the standard ensemble: APGD on cross-entropy, APGD-T on the logits ratio, FAB-T and Square.

    A sample leaves at its first success. The defaults are the standard's: 100 steps, 9 classes and 5000 queries; under
    L1 the first member runs five times and the second attacks five classes. If the model has fewer classes, all are
    attacked; APGD-T uses the margin if there are too few classes for the logits ratio.

    Args:
        goal: not supported; the standard is untargeted.
        steps: number of steps of every run of APGD and FAB-T.
        queries: for Square alone, one number or one per sample `[B]`.
        candidates: how many of the likeliest other classes APGD-T and FAB-T attack.
        patience: FAB-T gives up a class after this many steps without progress if the nearest boundary point that it
            found is beyond 1.5 eps; None never gives up, as in the standard. Not used under L1, where progress comes
            late.

    Returns:
        The first success of each sample, shaped like `x`; the clean image if there is none.

    Raises:
        Unsupported: a goal is given.
    """
    domain_of(model).require_images("autoattack")
    generator = default_generator(generator, x.device)
    if goal is not None:
        raise Unsupported("autoattack has no goal: the standard is untargeted; use apgd or square with a goal")
    at_least_one(steps=steps, candidates=candidates, chunk=1 if chunk is None else chunk)
    limit = Queries(model, x, y, queries).limit  # raises for wrong arguments before the first pass
    threat = ball(norm, eps, among=("linf", "l2", "l1")).in_domain(domain_of(model))
    threat.check(x)
    if len(x) == 0:
        return x.clone()
    # The attack makes thousands of passes; on a CPU, convolutions are up to a third faster with channels last in
    # memory.
    on_cpu = x.device.type == "cpu"
    x = x.detach().contiguous(memory_format=torch.channels_last if on_cpu else torch.contiguous_format)
    x_adv = x.clone()
    chunk = chunk or len(x)
    eps = torch.as_tensor(eps, device=x.device).expand(len(x))
    runs, classes, fab_patience = (5, min(candidates, 5), None) if norm == "l1" else (1, candidates, patience)
    shared: dict[str, Any] = {"norm": norm, "chunk": chunk, "generator": generator}
    gradient_options = {**shared, "steps": steps, "keep": "success"}
    members: list[tuple[Callable[..., Tensor], dict[str, Any]]] = [
        (apgd, {"objective": "ce", "restarts": runs, **gradient_options}),
        (apgd, {"objective": "dlr", "candidates": classes, **gradient_options}),
        (fab, {"boundaries": "each", "candidates": candidates, "patience": fab_patience, **gradient_options}),
        (square, shared),
    ]
    with frozen(model), _channels_last(model) if on_cpu else nullcontext():
        logits = in_parts(model, x, chunk)
        check_classes(logits, y)
        going = (~succeeded(logits, y, None)).nonzero().squeeze(1)
        # each member of the ensemble attacks the samples that no earlier member fooled
        for member, options in members:
            if len(going) == 0:
                break
            budget = {"queries": limit[going]} if member is square else {}
            found = member(model, x[going], y[going], eps=eps[going], **budget, **options)
            fooled = succeeded(in_parts(model, found, chunk), y[going], None)
            x_adv[going[fooled]] = found[fooled]
            going = going[~fooled]
    return x_adv.contiguous()


@contextmanager
def _channels_last(model: nn.Module) -> Iterator[None]:
    """Store the weights of convolutions with channels last inside the block, so that no pass needs to copy them."""
    kept = [(weight, weight.data) for weight in model.parameters() if weight.dim() == 4]
    try:
        for weight, data in kept:
            weight.data = data.contiguous(memory_format=torch.channels_last)
        yield
    finally:
        for weight, data in kept:
            weight.data = data
