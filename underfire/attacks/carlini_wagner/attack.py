"""Carlini and Wagner's attacks (Towards Evaluating the Robustness of Neural Networks, IEEE S&P 2017)."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from underfire.ascent.losses import as_objective
from underfire.ascent.nearest import Nearest, evaluate_clean
from underfire.ascent.objectives import Objective, carlini
from underfire.ascent.step import succeeded
from underfire.attacks.carlini_wagner.descent import Search, descend
from underfire.attacks.carlini_wagner.searches import L0Search, L2Search, LinfSearch
from underfire.catalog import card
from underfire.domains import ADDITIVE, domain_of
from underfire.errors import InputError
from underfire.hooks import frozen
from underfire.validate import at_least_one


@card(
    "attack",
    paper="Carlini and Wagner, Towards Evaluating the Robustness of Neural Networks, IEEE S&P 2017",
    domains=ADDITIVE,
    knowledge="white-box",
    norms=("l2", "linf", "l0"),
    goals=("untargeted", "targeted"),
    random=False,
    atlas="AML.T0043.000",
    minimal=True,
    quick={"steps": 2, "binary_search_steps": 1},
)
def carlini_wagner(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "l2",
    eps: float | Tensor | None = None,
    steps: int | None = None,
    step_size: float | None = None,
    binary_search_steps: int = 9,
    c: float | None = None,
    confidence: float = 0.0,
    function: int = 6,
    objective: Objective | None = None,
    abort_early: bool = True,
    generator: Generator | None = None,
) -> Tensor:
    """Minimise `distance + c * f` by Adam over `w`, where `x'` is `tanh(w)` scaled to the box.

    L2: a binary search over `c`. L-infinity: only the part of a change beyond a limit `tau` adds to the distance;
    `tau` falls by at least a tenth after a run that keeps the limit, and `c` doubles after a run that does not. L0: the
    L2 attack on fewer and fewer entries. For L-infinity and L0, each run starts from the result of the previous run.
    Each sample has its own search, and leaves the batch when the search ends.

    If the paper leaves a choice open, this attack follows the authors' code, with these differences. Box: it is the
    middle 99 % of the range of tanh, so that black and white pixels can move. L-infinity: `tau` may fall to 1e-4
    instead of one grey level, and Adam's step size is never larger than `tau`. L0: the attack counts entries instead of
    pixels, and freezes more entries at once if there are many. L-infinity and L0: a run ends when its loss stalls; if
    it failed, the next run continues from its last iterate.

    Args:
        steps: largest number of steps of one run; None is 10,000 for L2 and 1,000 for the other norms.
        step_size: size of Adam's steps in tanh space; None is the paper's 0.01, and 0.005 for L-infinity.
        binary_search_steps: number of values of `c` that are tried; only for L2.
        c: first weight of `f`; None is 1e-3, and 1e-5 for L-infinity.
        function: which of the paper's seven functions f to use, 1 to 7; see `underfire.ascent.objectives.carlini`.
        objective: what to maximise instead of `-f`; `confidence` then only decides which iterates are successes.
        abort_early: whether a run ends if its loss has fallen by less than a ten-thousandth in a tenth of the steps.

    Returns:
        The nearest success of each sample, shaped like `x`; the clean image if there is none.
    """
    steps = (10_000 if norm == "l2" else 1000) if steps is None else steps
    step_size = (0.005 if norm == "linf" else 0.01) if step_size is None else step_size
    c = (1e-5 if norm == "linf" else 1e-3) if c is None else c
    at_least_one(steps=steps, binary_search_steps=binary_search_steps)
    if not (step_size > 0 and c > 0 and confidence >= 0):
        raise InputError(f"step_size and c must be > 0 and confidence >= 0, got {step_size}, {c} and {confidence}")
    objective = carlini(function, confidence) if objective is None else as_objective(objective)
    nearest = Nearest(x, norm, eps, among=("l2", "linf", "l0"), domain=domain_of(model))
    with frozen(model):
        logits, targets = evaluate_clean(model, x, y, goal, nearest)
        clean = x.detach()
        search: Search
        if norm == "l2":
            search = L2Search(clean, c, step_size, nearest.threat, binary_search_steps)
        elif norm == "linf":
            search = LinfSearch(clean, c, step_size, nearest.threat)
        else:
            search = L0Search(clean, c, step_size, nearest.threat, model)
        # samples that are successes without a change need no search
        targets = targets.take((~succeeded(logits, targets.y, targets.goal)).nonzero().squeeze(1))
        descend(model, targets, objective, search, nearest, steps=steps, confidence=confidence, abort_early=abort_early)
    return nearest.x_adv
