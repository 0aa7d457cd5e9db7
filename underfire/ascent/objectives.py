"""Objectives: functions that an attack maximises, with one value per row `[B]`.

Objectives can be added, and multiplied by numbers or schedules: `margin() + 5 * keep_map(interpreter, benign_map)` is
an objective. A larger value is better for the attacker, with a goal and without.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.ascent.objective import Objective as Objective
from underfire.ascent.objective import objective as objective
from underfire.ascent.step import Step
from underfire.errors import InputError, Unsupported
from underfire.measures.maps import normalise, resize


def _pick(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the logit of one class for every row, `[B]`."""
    return logits.gather(1, classes[:, None]).squeeze(1)


def _others(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the logits, with minus infinity for `classes`."""
    return logits.scatter(1, classes[:, None], float("-inf"))


def margin() -> Objective:
    """Maximise the margin: the lead in logits of the wrong class, positive exactly where the attack has succeeded.

    Without a goal it is the largest other logit minus that of `y`; with a goal, the logit of the goal minus the largest
    other logit. It is the usual choice, since its gradient does not vanish on a confident network.
    """

    def term(step: Step) -> Tensor:
        logits = step.logits
        own = step.y if step.goal is None else step.goal
        lead = _others(logits, own).amax(1) - _pick(logits, own)
        return lead if step.goal is None else -lead

    return objective(term, logits_only=True)


def logit() -> Objective:
    """Minimise the logit of `y`, or maximise that of the goal.

    Its gradient does not vanish where the goal is reached, so that many steps make a targeted attack transfer better.

    Source: Zhao, Liu and Larson, On Success and Simplicity: A Second Look at Transferable Targeted Attacks, NeurIPS
        2021.
    """

    def term(step: Step) -> Tensor:
        logits = step.logits
        return -_pick(logits, step.y) if step.goal is None else _pick(logits, step.goal)

    return objective(term, logits_only=True)


def log_odds() -> Objective:
    """Maximise the log-odds against `y`, or those of the goal: cross-entropy without its vanishing gradient.

    Cross-entropy is the softplus of the log-odds, `-log p = log(1 + exp(v))`, so that the two gradients differ by one
    positive factor per sample. That factor underflows to zero on a confident network, and attacks that take the sign of
    the gradient or normalise it do not need it.
    """

    def term(step: Step) -> Tensor:
        logits = step.logits
        own = step.y if step.goal is None else step.goal
        against = _others(logits, own).logsumexp(1) - _pick(logits, own)
        return against if step.goal is None else -against

    return objective(term, logits_only=True)


def log_success() -> Objective:
    """Maximise the log-probability of a success: `log (1 - p_y)`, or `log p` of the goal.

    It suits an average over many views or images, because those that already succeed get almost no weight. With a goal
    it is minus the cross-entropy of the goal. Its gradient does not vanish where the model is confident and right.
    """
    odds = log_odds()

    def term(step: Step) -> Tensor:
        return F.logsigmoid(odds(step))

    return objective(term, logits_only=True)


def cross_entropy(smoothing: float = 0.0) -> Objective:
    """Maximise the cross-entropy of `y`, or minimise that of the goal; see `log_odds` for confident networks.

    Label smoothing (`1 - smoothing` on the goal, the rest spread evenly over all classes) needs a goal. Without a goal
    it would be wrong: the smoothed cross-entropy of `y` has its minimum at a probability below one, so an attack that
    increases it can make a confident model more confident.

    Raises:
        InputError: the smoothing is not in [0, 1). Unsupported: in a step, there is smoothing and no goal.
    """
    if not 0 <= smoothing < 1:
        raise InputError(f"label smoothing must be in [0, 1), got {smoothing}")

    def term(step: Step) -> Tensor:
        logits = step.logits
        if step.goal is None:
            if smoothing:
                raise Unsupported("label smoothing needs a goal; use smoothing=0 for an untargeted attack")
            return F.cross_entropy(logits, step.y, reduction="none")
        return -F.cross_entropy(logits, step.goal, reduction="none", label_smoothing=smoothing)

    return objective(term, logits_only=True)


def dlr() -> Objective:
    """Maximise the difference of logits ratio (DLR): the margin divided by a spread of the logits.

    With a goal, the margin is that of the goal over `y`. Shift and scale of the logits have no effect. The model needs
    at least three classes, or four with a goal.

    Source: Croce and Hein, Reliable Evaluation of Adversarial Robustness with an Ensemble of Attacks, ICML 2020, (6)
        and (7).
    """

    def term(step: Step) -> Tensor:
        logits = step.logits
        needed = 3 if step.goal is None else 4
        if logits.shape[1] < needed:
            raise Unsupported(f"dlr needs at least {needed} classes here, the model has {logits.shape[1]}; use margin")
        top = logits.topk(needed, dim=1).values
        tiny = torch.finfo(logits.dtype).tiny
        if step.goal is None:
            lead = _others(logits, step.y).amax(1) - _pick(logits, step.y)
            return lead / (top[:, 0] - top[:, 2]).clamp_min(tiny)
        spread = top[:, 0] - (top[:, 2] + top[:, 3]) / 2
        return (_pick(logits, step.goal) - _pick(logits, step.y)) / spread.clamp_min(tiny)

    return objective(term, logits_only=True)


def carlini(f: int = 6, confidence: float = 0.0) -> Objective:
    """Minimise one of the seven functions `f1` ... `f7` of Carlini and Wagner, which are at most 0 for a success.

    With `t` the goal, `F` the probabilities and `Z` the logits:

    1. `-log2 F_t - 1` (cross-entropy in bits; printed as `1 - loss`, whose sign is wrong)
    2. `max(max_{i != t} F_i - F_t, 0)`
    3. `softplus(max_{i != t} F_i - F_t) - log 2`
    4. `max(0.5 - F_t, 0)`
    5. `-log(2 F_t)` (printed as `-log(2 F_t - 2)`, which has no value)
    6. `max(max_{i != t} Z_i - Z_t, 0)` (the paper's choice, and the default)
    7. `softplus(max_{i != t} Z_i - Z_t) - log 2`

    Numbers 2, 3, 6 and 7 are at most 0 exactly where the prediction is `t`. Numbers 1, 4 and 5, as corrected here, are
    at most 0 where `F_t >= 1/2`, a stronger condition if there are more than two classes (5 is 1 in nats instead of
    bits). Without a goal, `t` is the likeliest class other than `y`, and `y` takes the place of the maximum over
    `i != t`. The gradients of 2, 3 and 4 vanish on a confident network, as the paper found; those of the others, which
    are computed from the logits, do not.

    Args:
        f: number of the function, 1 to 7.
        confidence: lead in logits that `t` must have; it is subtracted from `Z_t` first. (For 6 this is the paper's
            `max(., -confidence)`, shifted so that its minimum is zero.)

    Raises:
        InputError: there is no such function.

    Source: Carlini and Wagner, Towards Evaluating the Robustness of Neural Networks, IEEE S&P 2017, section V.
    """
    if f not in range(1, 8):
        raise InputError(f"f must be from 1 to 7, got {f}")

    def term(step: Step) -> Tensor:
        logits = step.logits
        t = _others(logits, step.y).argmax(1) if step.goal is None else step.goal
        if confidence:
            logits = logits.scatter_add(1, t[:, None], torch.full_like(logits[:, :1], -confidence))
        seen = logits.softmax(1) if f in (2, 3, 4) else logits
        rival = _pick(seen, step.y) if step.goal is None else _others(seen, t).amax(1)
        behind = rival - _pick(seen, t)
        if f in (1, 5):
            short = -_pick(logits.log_softmax(1), t) - math.log(2)
            return -(short / math.log(2) if f == 1 else short)
        if f == 4:
            return -(0.5 - _pick(seen, t)).clamp_min(0)
        return -(behind.clamp_min(0) if f in (2, 6) else F.softplus(behind) - math.log(2))

    return objective(term, logits_only=True)


Interpreter = Callable[..., Tensor]


def explained_class(step: Step) -> Tensor:
    """Return the class whose explanation is attacked: the goal, or the class that the model predicts now."""
    return step.logits.detach().argmax(1) if step.goal is None else step.goal


def shown_map(step: Step, interpreter: Interpreter | None) -> Tensor:
    """Return the map that the model's user sees: that of the answer if it has one, or the interpreter's.

    Raises:
        Unsupported: a gradient is needed, and the interpreter's map has none.
    """
    if step.maps is not None:
        return step.maps
    assert interpreter is not None
    shown = interpreter(step.model, step.x, explained_class(step))
    if step.x.requires_grad and torch.is_grad_enabled() and not shown.requires_grad:
        raise Unsupported(
            "this interpreter's map is not differentiable in the image, so no gradient can steer it; adv2_black_box "
            "needs none"
        )
    return shown


def keep_map(interpreter: Interpreter | None, target: Tensor, *, pool: int = 1) -> Objective:
    """Minimise the mean squared difference between the map and the target map, both normalised to [0, 1].

    Args:
        interpreter: `(model, x', classes) -> [B, 1, h, w]`, differentiable in `x'`; None reads the map that the model
            answers with.
        target: the maps that the explanations should become, `[N, 1, h', w']`, one for each sample of the attack.
        pool: average both maps over squares of this side first.

    Source: Zhang et al., Interpretable Deep Learning under Fire, USENIX Security 2020, (3), with the map normalised.
    """
    if pool < 1:
        raise InputError(f"pool must be >= 1, got {pool}")
    if target.dim() != 4 or target.shape[1] != 1:
        raise InputError(f"target must be one map per image, [B, 1, h, w], got {tuple(target.shape)}")
    wanted: dict[tuple[int, ...], Tensor] = {}  # the prepared target, by the size of the map that it is compared with

    def prepared(m: Tensor) -> Tensor:
        return normalise(F.avg_pool2d(m, pool, ceil_mode=True) if pool > 1 else m)

    def term(step: Step) -> Tensor:
        shown = shown_map(step, interpreter)
        size = (shown.shape[2], shown.shape[3])
        if size not in wanted:
            wanted[size] = prepared(resize(target.detach().to(shown), size))
        return -(prepared(shown) - wanted[size][step.index]).square().flatten(1).mean(1)

    return objective(term)
