"""Query a black-box model within a budget of queries for each sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from underfire.ascent.step import succeeded
from underfire.domains import check_inputs
from underfire.errors import InputError, OracleError, UnderfireError
from underfire.validate import at_least_one, check_classes


class Queries:
    """A model with a budget of queries per sample; one image through the model is one query.

    Call the object with candidate inputs and the samples that they belong to. Check `left` first: one query too many
    raises InputError.

    Args:
        model: maps images `[B, C, H, W]` to logits `[B, K]`.
        x: the clean images of the attack.
        y: their labels, int64 `[B]`.
        limit: the budget: how many queries each sample may cost, one number or one per sample `[B]`.
        goal: classes to reach, int64 `[B]`, or None.
        chunk: how many images go through the model at once, which bounds the memory.
        answer: a function from images to the result of a query, logits and further tensors; None is the model's logits.

    Attributes:
        used: queries spent so far, int64 `[B]`.

    Raises:
        DataError: images or labels are wrong. InputError: the limit is wrong.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        limit: int | Tensor,
        *,
        goal: Tensor | None = None,
        chunk: int = 128,
        answer: Callable[[Tensor], tuple[Tensor, ...]] | None = None,
    ) -> None:
        check_inputs(model, x, y, goal)
        allowed = torch.as_tensor(limit, device=x.device)
        if allowed.dim() > 0 and allowed.shape != (len(x),):
            raise InputError(f"queries must be one number or one per sample [{len(x)}], got {tuple(allowed.shape)}")
        if allowed.is_floating_point() or bool((allowed < 1).any()):
            raise InputError(f"queries must be whole numbers of at least 1, got {limit}")
        at_least_one(chunk=chunk)
        self.model, self.y, self.goal, self.chunk = model, y, goal, chunk
        self.answer: Callable[[Tensor], tuple[Tensor, ...]] = answer or (lambda x: (model(x),))
        self.limit = allowed.to(torch.int64).expand(len(x))
        self.used = torch.zeros_like(self.limit)
        self._checked = False

    @property
    def left(self) -> Tensor:
        """Return how many queries each sample has left, int64 `[B]`."""
        return self.limit - self.used

    def __call__(self, x: Tensor, index: Tensor) -> Tensor:
        """Return the logits `[M, K]` of inputs `[M, ...]`, each a query of the sample that `index` `[M]` names.

        Raises:
            OracleError: the model failed. All images of the call count as queries, and all results of the call are
                lost.
        """
        return self.answers(x, index)[0]

    @torch.no_grad()
    def answers(self, x: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        """Return the complete results of queries with inputs `[M, ...]`: the logits `[M, K]` and any further tensors.

        Raises:
            OracleError: the model failed. All images of the call count as queries, and all results of the call are
                lost.
        """
        cost = torch.bincount(index, minlength=len(self.used))
        if bool((self.used + cost > self.limit).any()):
            worst = int((self.used + cost - self.limit).argmax())
            raise InputError(f"sample {worst} has a budget of {int(self.limit[worst])} queries; the call needs more")
        self.used = self.used + cost
        try:
            parts = [self.answer(part) for part in x.split(self.chunk)] if len(x) else [(x.new_zeros(0, 1),)]
            found = tuple(torch.cat(entries) for entries in zip(*parts, strict=True))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # an oracle may be a remote service or foreign code, which can raise anything
            if isinstance(error, UnderfireError) and not self._checked:
                raise  # an error in the first call means that the model refuses such images
            done = int(self.used.sum())
            reason = str(error).split("\n", 1)[0] or type(error).__name__
            raise OracleError(f"the model failed after {done - len(x)} queries: {reason}") from error
        if not self._checked and len(x):
            check_classes(found[0], self.y, self.goal)
            self._checked = True
        return found

    def each(self, make: Callable[[Tensor], Tensor], index: Tensor) -> Tensor:
        """Make inputs in chunks, query the model with each chunk, and return all logits, `[M, K]`.

        Args:
            make: a function from positions in `index`, int64 `[m]` with `m <= chunk`, to the inputs `[m, ...]` there.
            index: the sample that pays for each input, int64 `[M]`.
        """
        parts = torch.arange(len(index), device=index.device).split(self.chunk)
        return torch.cat([self(make(rows), index[rows]) for rows in parts])

    def reached(self, logits: Tensor, index: Tensor) -> Tensor:
        """Return whether each of the logits `[M, K]` is a success for its sample, bool `[M]`."""
        return succeeded(logits, self.y[index], None if self.goal is None else self.goal[index])


@contextmanager
def attach_partial_result(found: Callable[[], Any]) -> Iterator[None]:
    """Attach `found()` to an OracleError that is raised in the block, so that the result so far is not lost."""
    try:
        yield
    except OracleError as error:
        if error.found is None:
            error.found = found()
        raise
