"""The term of ATTA: the objective of an attack, on the classifier behind the hardest transformation of the images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from underfire.ascent.objective import Objective, Prepared, Start, Term
from underfire.ascent.objective import objective as one_term
from underfire.ascent.objectives import log_odds
from underfire.ascent.step import Step
from underfire.attacks.transfer.transformation.network import AdversarialTransformation, transformed
from underfire.attacks.transfer.transformation.sharing import shared
from underfire.attacks.transfer.transformation.training import Game, transformations_of
from underfire.catalog import card
from underfire.errors import InputError
from underfire.hooks import bypass_cache
from underfire.validate import at_least, at_least_one


@card("part", role="objective")
def hard_transformation(
    weights: str | Path | AdversarialTransformation | None = None,
    gamma: float = 1.0,
    outer_steps: int = 10,
    inner_steps: int = 10,
    transformation_rate: float = 1e-3,
    clean_weight: float = 1.0,
    strength_weight: float = 10.0,
    plain_weight: float = 1.0,
    kernels: tuple[int, int] = (3, 15),
    *,
    eps: float | Tensor = 16 / 255,
    objective: Objective | None = None,
) -> Objective:
    """Maximise an objective on the classifier behind an adversarial transformation network (ATTA).

    Without `weights`, a network is trained for each image when the attack begins, by algorithm 1 of the paper. That
    costs `outer_steps * (inner_steps + 1)` passes of two images each, forward and backward. Each step of the attack
    then costs one more pass. Another attack on the same images, with the same options, does not train them again.

    Args:
        weights: a file that `underfire train atta` wrote, or the result of `train_transformation`: one network for all
            images. None trains one for each image.
        gamma: weight of the classifier behind the network.
        outer_steps: steps of the network, the paper's K_outer.
        inner_steps: steps of the images for each step of the network, the paper's K_inner; they have size
            `eps / inner_steps`, by Adam.
        transformation_rate: Adam's step size in the weights of the network. The paper's is not known to us.
        clean_weight: weight of the cross-entropy of the transformed clean image, the paper's alpha_1.
        strength_weight: weight of `|x' - T(x')|^2`, the paper's alpha_2.
        plain_weight: weight of the adversarial image's own loss in the inner loop, the paper's beta.
        kernels: sides of the kernels of the two convolutions, odd.
        eps: largest change of the adversarial images in the inner loop, for its step size.
        objective: what to make large behind the network; None is `log_odds`.

    Raises:
        InputError: an argument is out of its range, or the file holds no network. NotFitted: the network is not
            trained; the message names the command that trains it.

    Source: Wu, Su, Lyu and King, Improving the Transferability of Adversarial Samples with Adversarial Transformations,
        CVPR 2021.
    """
    at_least_one(outer_steps=outer_steps)
    at_least(0, gamma=gamma)
    if not transformation_rate > 0:
        raise InputError(f"transformation_rate must be above 0, got {transformation_rate:g}")
    game = Game(clean_weight, strength_weight, plain_weight, inner_steps)
    slope = 0.01
    known = AdversarialTransformation.load(weights) if isinstance(weights, (str, Path)) else weights
    if known is not None:
        known.check_trained()
    aim = objective or log_odds()

    def prepare(start: Start) -> Term:
        inner = aim.begin(start, [start.model])
        if known is None:
            size = torch.as_tensor(eps, dtype=start.x.dtype, device=start.x.device) / inner_steps
            settings: dict[str, Any] = {"outer_steps": outer_steps, "rate": transformation_rate}
            settings |= {"size": size.expand(len(start.x)), "kernels": kernels, "slope": slope}
            options = {**settings, "size": size.tolist(), "game": game}
            own = shared(start, options, lambda: transformations_of(start, game, **settings))

        def term(step: Step) -> Tensor:
            if known is not None:
                seen = known.to(step.x.device)(step.x)
            else:
                seen = transformed(step.x, tuple(weight[step.index] for weight in own), slope)
            with bypass_cache(step.model):  # other terms read the pass of the image itself
                logits = step.model(seen)
                return inner(replace(step, x=seen, logits=logits))

        return term

    # the passes of this term are its own, so that none can be shared
    return gamma * one_term(Prepared(prepare), logits_only=aim.logits_only)
