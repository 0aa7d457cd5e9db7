"""Substitute attack (Papernot et al., Practical Black-Box Attacks against Machine Learning, AsiaCCS 2017)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Generator, Tensor, nn

from underfire.ascent.queries import Queries
from underfire.ascent.threats import ball
from underfire.attacks.fgsm import fgsm
from underfire.attacks.pgd import pgd
from underfire.attacks.substitute.surrogates import Architecture, Training
from underfire.catalog import card
from underfire.domains import domain_of
from underfire.errors import DataError, Unsupported, nearest
from underfire.hooks import frozen
from underfire.validate import default_generator

ATTACKS: dict[str, Callable[..., Tensor]] = {"fgsm": fgsm, "pgd": pgd}


@card(
    "attack",
    paper="Papernot, McDaniel, Goodfellow, Jha, Celik and Swami, Practical Black-Box Attacks against Machine Learning, "
    "AsiaCCS 2017",
    knowledge="black-box",
    norms=("linf",),
    goals=("untargeted", "targeted"),
    random=True,
    atlas="AML.T0043.002",
    quick={"queries": 20, "epochs": 1},
)
def substitute(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 0.3,
    queries: int | Tensor = 1000,
    method: str | Callable[..., Tensor] = "fgsm",
    seeds: Tensor | None = None,
    architecture: Architecture = "dnn",
    steps: int = 6,
    step_size: float = 0.1,
    period: int = 3,
    doublings: int = 3,
    reservoir: int = 400,
    epochs: int = 10,
    generator: Generator | None = None,
) -> Tensor:
    """Train a network on the predictions of the model, and attack that network instead.

    The attack uses only the labels that the model predicts. All of them form one training set that the whole batch
    shares.

    Args:
        queries: how many images each sample may send through the model. The queries are pooled: the batch spends at
            most the sum over its samples. No query tests whether the attack succeeds.
        method: the attack on the substitute: `"fgsm"`, `"pgd"`, or a callable `(substitute, x, y, *, goal, eps,
            generator) -> x'` that stays within eps.
        seeds: images that the attacker has to begin with, `[N, C, H, W]`; None is the batch itself.
        architecture: see `train_substitute`, also for the options below.
        steps: see `train_substitute`.
        step_size: see `train_substitute`.
        period: see `train_substitute`.
        doublings: see `train_substitute`.
        reservoir: see `train_substitute`.
        epochs: see `train_substitute`.

    Raises:
        OracleError: the model failed; the error's `found` is a `Labelled`.
    """
    domain_of(model).require_images("substitute")
    generator = default_generator(generator, x.device)
    if isinstance(method, str) and method not in ATTACKS:
        raise Unsupported(f"unknown method {method!r}; {nearest(method, ATTACKS)}")
    attack = ATTACKS[method] if isinstance(method, str) else method
    query = Queries(model, x, y, queries, goal=goal)
    ball(norm, eps, among=("linf",)).in_domain(domain_of(model)).check(x)
    seeds = x if seeds is None else seeds
    if seeds.shape[1:] != x.shape[1:]:
        raise DataError(f"seeds must be images {tuple(x.shape[1:])}, got {tuple(seeds.shape[1:])}")
    if len(x) == 0 or len(seeds) == 0:
        return x.clone()
    training = Training(query, architecture, steps, step_size, period, doublings, reservoir, epochs, generator)
    with frozen(model):
        stolen = training.run(seeds.to(x))
    return attack(stolen, x, y, goal=goal, eps=eps, generator=generator).detach()
