"""The tokens of transfer attacks: the words of names such as `si_ni_ti_dim`, one line of `TOKENS` each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from underfire.ascent import feature_terms, moves, objectives
from underfire.attacks.transfer.transformation import hard_transformation
from underfire.gradients import estimators, neighbourhoods, smoothing, views
from underfire.gradients.admixing import admix
from underfire.gradients.backward import skip_gradient
from underfire.gradients.blocks import block_shuffle, structure_invariant
from underfire.gradients.estimators import Estimator
from underfire.gradients.spectra import spectrum_simulation
from underfire.gradients.svre import svre
from underfire.gradients.views import View

Maker = Callable[..., Any]
BALLS = ("linf", "l2")
#: Arguments of a maker that the attack itself has; every other argument is an option of the attack.
CONTEXT = ("model", "x", "y", "goal", "eps", "steps", "step_size", "objective", "generator")


@dataclass(frozen=True)
class Token:
    """One word of a name: the functions that make its parts of a recipe, and facts about them.

    Every argument of such a function is an option of the attack, except for those in `CONTEXT`, which it is given.

    Attributes:
        said: the idea in a few words.
        views: makes a view. The views of several tokens are applied in the order of the name.
        smooth: makes a smoothing. Those of several tokens are applied in the order of the name.
        term: makes an objective that is added to that of the attack, one for each token.
        loss: makes the objective that the attack has by default, instead of `log_odds`.
        estimate: makes the estimator.
        backward: makes the rule of the backward pass.
        move: makes the move.
        usual_move: makes the move of a published method, unless another token of the name has a `move`.
        random: whether the result depends on the generator.
        norms: the norms in which the parts make sense.
        models: the only kind of model that it takes; empty for any classifier.
    """

    said: str
    views: Maker | None = None
    smooth: Maker | None = None
    term: Maker | None = None
    loss: Maker | None = None
    estimate: Maker | None = None
    backward: Maker | None = None
    move: Maker | None = None
    usual_move: Maker | None = None
    random: bool = False
    norms: tuple[str, ...] = BALLS
    models: str = ""

    def makers(self) -> dict[str, Maker]:
        """Return the functions that make parts, by the name of their attribute."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in found.items() if callable(value)}


def variance_tuning(samples: int = 20, neighbourhood: float = 1.5, *, eps: float | Tensor) -> Estimator:
    """Return `variance_tuned` with a radius in units of eps.

    Args:
        samples: number of points around an iterate, the paper's N.
        neighbourhood: half the side of the cube that the points are drawn from, in units of eps; the paper's beta.

    Source: Wang and He, Enhancing the Transferability of Adversarial Attacks through Variance Tuning, CVPR 2021.
    """
    return estimators.variance_tuned(samples, neighbourhood * eps)


def operator_sampling(
    perturbations: int = 10,
    samples: int = 20,
    neighbourhood: float = 2.0,
    shares: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5),
    *,
    eps: float | Tensor,
) -> View:
    """Return the view of OPS: the image, and random operators applied to random neighbours.

    The authors draw the neighbours once for a batch and choose some of them in each step; here every step and every
    image has its own.

    Args:
        perturbations: number of neighbours.
        samples: number of random chains of operators for each neighbour.
        neighbourhood: the largest change of a neighbour, in units of eps; the paper's beta.
        shares: the noise of a neighbour is uniform within the neighbourhood times one of these numbers.

    Source: Guo et al., Boosting Adversarial Transferability through Augmentation in Hypothesis Space, CVPR 2025.
    """
    around = neighbourhoods.neighbours(perturbations, neighbourhood * eps, shares)
    return views.together(views.identity, views.compose(around, neighbourhoods.random_operators(samples)))


def flat_maxima(
    samples: int = 20, neighbourhood: float = 3.0, penalty: float = 0.5, *, eps: float | Tensor, steps: int
) -> Estimator:
    """Return `gradient_penalty` with a radius in units of eps and steps of `eps / steps`.

    Args:
        samples: number of neighbours of an iterate, the paper's N.
        neighbourhood: half the side of the cube that they are drawn from, in units of eps; the paper's zeta.
        penalty: weight of the gradient after a step down, the paper's delta.

    Source: Ge et al., Boosting Adversarial Transferability by Achieving Flat Local Maxima, NeurIPS 2023.
    """
    return neighbourhoods.gradient_penalty(samples, neighbourhood * eps, eps / steps, penalty)


_MI, _NI = moves.momentum, moves.look_ahead
_DI, _TI, _SI, _VT = views.input_diversity, smoothing.translation_kernel, views.scale_copies, variance_tuning

TOKENS: dict[str, Token] = {
    "fgsm": Token("sign steps"),
    "i": Token("the last gradient alone", move=moves.plain),
    "mi": Token("momentum", move=_MI),
    "ni": Token("Nesterov momentum", move=_NI),
    "di": Token("diverse input sizes", views=_DI, random=True),
    "dim": Token("diverse input sizes", views=_DI, usual_move=_MI, random=True),
    "ti": Token("translation invariance", smooth=_TI),
    "tim": Token("translation invariance", smooth=_TI, usual_move=_MI),
    "si": Token("scale invariance", views=_SI),
    "sim": Token("scale invariance", views=_SI, usual_move=_MI),
    "vt": Token("variance tuning", estimate=_VT, random=True, norms=("linf",)),
    "vmi": Token("variance-tuned momentum", estimate=_VT, move=_MI, random=True, norms=("linf",)),
    "vni": Token("variance-tuned Nesterov momentum", estimate=_VT, move=_NI, random=True, norms=("linf",)),
    "tap": Token("feature distances", term=feature_terms.tap_terms),
    "ata": Token("attention distances", term=feature_terms.attention_distance),
    "at": Token("the hardest transformation", term=hard_transformation, random=True),
    "atta": Token("the hardest transformation", term=hard_transformation, random=True),
    "logit": Token("the logit as the loss", loss=objectives.logit),
    "svre": Token("variance reduction between sources", estimate=svre, usual_move=_MI, random=True, models="ensemble"),
    "admix": Token("mixed-in images of other classes", views=admix, usual_move=_MI, random=True),
    "ssm": Token("simulated spectra", views=spectrum_simulation, usual_move=_MI, random=True),
    "sia": Token("transformed blocks", views=structure_invariant, usual_move=_MI, random=True),
    "bsr": Token("shuffled and rotated blocks", views=block_shuffle, usual_move=_MI, random=True),
    "ops": Token("sampled operators", views=operator_sampling, usual_move=_MI, random=True, norms=("linf",)),
    "pgn": Token("flat maxima", estimate=flat_maxima, usual_move=_MI, random=True, norms=("linf",)),
    "sgm": Token("skip gradients", backward=skip_gradient, models="residual network"),
}
