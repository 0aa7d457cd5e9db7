"""N-version voting, NV-DNN (Xu et al., DSN Workshops 2019)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from underfire.catalog import card
from underfire.defenses.defended import Defended, mean_probability
from underfire.defenses.versions import Several, Version, opened, same_classes
from underfire.errors import InputError
from underfire.model import Classifier
from underfire.transforms.rounding import replaced


class Decision(NamedTuple):
    """The class that most versions vote for, and how many do.

    Attributes:
        classes: int64 `[B]`; -1 where fewer versions agree than was asked for.
        votes: votes for the class with the most votes, int64 `[B]`.
    """

    classes: Tensor
    votes: Tensor


class Voting(Several):
    """Versions that vote."""

    def answer(self, x: Tensor, generator: Generator) -> Tensor:
        """Return the logarithm of the shares of votes; a tie is decided by the mean probability."""

        def voted(z: Tensor) -> Tensor:
            logits = same_classes([member(z) for member in self.members])
            soft = mean_probability(logits)
            return replaced(soft, vote_share(votes_for(logits), soft.exp()).log())

        return self.passed(voted, x)


class NVersion(Defended):
    """A classifier and other versions of it that vote."""

    module: Voting

    @torch.no_grad()
    def decide(self, x: Tensor, *, agreeing: int | None = None) -> Decision:
        """Return the class with the most votes, or -1 where fewer than `agreeing` versions vote for it.

        Args:
            x: images `[B, C, H, W]`.
            agreeing: None is a majority, more than half of the versions.

        Raises:
            InputError: `agreeing` is not a number of versions.
        """
        members = self.module.members
        least = len(members) // 2 + 1 if agreeing is None else agreeing
        if not 1 <= least <= len(members):
            raise InputError(f"agreeing must be from 1 to {len(members)}, the number of versions, got {agreeing}")
        logits = same_classes([member.predict(x) for member in members])
        votes = votes_for(logits)
        classes = vote_share(votes, mean_probability(logits).exp()).argmax(1)
        most = votes.gather(1, classes[:, None])[:, 0]
        return Decision(torch.where(most >= least, classes, -1), most)


@card(
    "defense",
    paper="Xu, Chen, Wu, Jin, Kuo and Lyu, NV-DNN: Towards Fault-Tolerant DNN Systems with N-Version Programming, "
    "DSN Workshops 2019",
    differentiable=False,
)
def n_version(model: Classifier, *, versions: tuple[Version, ...]) -> NVersion:
    """Let several independently trained versions vote, and answer with the class that most of them predict.

    Versions share the fewest faults if they differ in training, in architecture and, above all, in training data, as
    the paper finds. Logits are the logarithm of the share of votes; a tie is decided by the mean probability, which
    never overrules a vote. BPDA rule: the gradient of the logarithm of the mean probability. `decide` abstains where no
    majority agrees, which the paper treats as a detected fault.

    Args:
        versions: the other versions: classifiers, modules, or URIs of models.

    Raises:
        InputError: there is no other version. ModelError: one has other classes.
    """
    if len(versions) == 0:
        raise InputError("n_version needs at least one other version; two or more give a majority")
    return NVersion(Voting(model, opened(model, versions), n_version))


def votes_for(logits: Tensor) -> Tensor:
    """Return how many of several answers `[n, B, K]` have each class as their first, int64 `[B, K]`."""
    return torch.nn.functional.one_hot(logits.argmax(2), logits.shape[2]).sum(0)


def vote_share(votes: Tensor, probability: Tensor) -> Tensor:
    """Return shares `[B, K]` that sum to 1 and are ordered by votes, and for equal votes by a mean probability.

    Args:
        votes: counts `[B, K]`.
        probability: shaped like `votes`; its rows sum to 1. It weighs half a vote.
    """
    scores = votes.to(probability) + probability / 2
    return (scores / scores.sum(1, keepdim=True)).clamp_min(torch.finfo(scores.dtype).tiny)
