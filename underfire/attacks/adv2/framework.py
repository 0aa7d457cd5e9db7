"""The attack that ADV² is built on: PGD in a ball or in a patch, StAdv on a flow field, or any other threat."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Generator, Tensor

from underfire.ascent import moves
from underfire.ascent.flows import Flow, roughness
from underfire.ascent.moves import Move
from underfire.ascent.objectives import Interpreter, Objective, explained_class, objective
from underfire.ascent.regions import Patch
from underfire.ascent.threats import Threat, ball
from underfire.validate import at_least

NORMS = ("linf", "l2", "flow", "patch")
_STEPS = {"linf": 1 / 255, "patch": 10 / 255}


@dataclass(frozen=True)
class Framework:
    """The parts of the underlying attack.

    Attributes:
        threat: what may change, and by how much.
        step_size: the usual step, in the units of the threat.
        move: how gradients are used.
        terms: what the attack adds to the objective; None is nothing.
        spread: largest random displacement of a pixel at the start of a flow field, in pixels; 0 means no displacement.
    """

    threat: Threat
    step_size: float | Tensor
    move: Move
    terms: Objective | None
    spread: float = 0.0

    def start(self, x: Tensor, generator: Generator) -> Tensor:
        """Return the variable of the threat at which the attack on `x` begins."""
        if not (self.spread and isinstance(self.threat, Flow)):
            return self.threat.start(x)
        return self.threat.project(x, replace(self.threat, eps=self.spread).random_start(x, generator))


def framework(
    norm: str,
    eps: float | Tensor,
    mask: Tensor | None,
    threat: Threat | None,
    flow: float,
    spread: float = 0.0,
    move: Move | None = None,
) -> Framework:
    """Return the underlying attack of a norm, or of a threat that replaces norm, size and mask.

    A step is 1/255 for L-infinity, as in the paper, 10/255 for a patch, whose pixels change freely, and a tenth of eps
    for any other threat. A flow field is moved by Adam, and the objective has the flow loss of StAdv.

    Args:
        norm: the name of the threat, one of `NORMS`.
        eps: its size.
        mask: where the image may change.
        threat: the threat itself; None is that of the norm.
        flow: weight of the flow loss.
        spread: largest random displacement at the start of a flow field, in pixels.
        move: how the gradients of a flow field are used; None is Adam. Any other threat begins with the plain gradient.

    Raises:
        InputError: the weight or the spread is negative. Unsupported: the norm is unknown.
    """
    at_least(0, flow_weight=flow, flow_start=spread)
    if threat is None:
        kinds: dict[str, type[Threat]] = {"flow": Flow, "patch": Patch}
        threat = kinds[norm](eps, mask) if norm in kinds else ball(norm, eps, mask, among=NORMS)
    step_size = _STEPS.get(threat.norm, threat.eps / 10)
    if not isinstance(threat, Flow):
        return Framework(threat, step_size, moves.plain(), None)
    smooth = objective(lambda step: -flow * roughness(step.z))
    return Framework(threat, step_size, moves.adam() if move is None else move, smooth, spread)


def encoder_term(interpreter: Interpreter, weight: float) -> Objective | None:
    """Return the term for the encoder loss of a network that explains, or None if the interpreter has no such loss.

    Such an interpreter has a method `encoder_loss(model, x, y) -> [B]`. Without this term the map alone guides the
    attack, which the paper found to be too little for RTS (section 3.4).

    Raises:
        InputError: the weight is negative.
    """
    at_least(0, encoder_weight=weight)
    loss = getattr(interpreter, "encoder_loss", None)
    if loss is None or weight == 0:
        return None
    return objective(lambda step: -weight * loss(step.model, step.x, explained_class(step)))
