"""Prepare an interpreter for `underfire explain`: check its options, and fit it to data if it learns from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from typing import TYPE_CHECKING, Any

from underfire.catalog import Card, find
from underfire.cli import options
from underfire.cli.pictures import Job
from underfire.cli.progress import progress
from underfire.errors import InputError, NotFitted

if TYPE_CHECKING:
    from torch import Tensor

    from underfire.data import Dataset


@dataclass(frozen=True)
class PreparedInterpreter:
    """An interpreter with its options, fitted if necessary.

    Attributes:
        card: its card in the catalogue.
        call: maps `(model, x, y)` to the explanation; if the card has `detailed`, to the map and figures about it.
        known: the images of `--reference`, or None.
        passes: the approximate number of passes per image, for the progress bar.
    """

    card: Card
    call: Any
    known: Dataset | None
    passes: int

    @property
    def gives(self) -> str:
        """The kind of explanation: `"map"`, `"images"`, `"examples"` or `"rules"`."""
        return self.card.facts.gives

    @cached_property
    def images(self) -> Tensor | None:
        """The images of `--reference`, `[N, C, H, W]`; None without them."""
        return None if self.known is None else self.known[:].x

    def __call__(self, job: Job, x: Tensor, y: Tensor, **more: Any) -> Any:
        """Return the explanation.

        Raises:
            InputError: the interpreter must be fitted first.
        """
        try:
            return self.call(job.differentiated, x, y, **more)
        except NotFitted as error:
            weights = " or --set weights=FILE" if "weights" in self.card.options else ""
            raise InputError(f"{error}; here: --reference DATA_URI{weights}") from None


def prepare(
    job: Job, name: str, settings: tuple[str, ...], reference: str | None, reference_n: int | None
) -> PreparedInterpreter:
    """Return the interpreter `name` with its settings, fitted to the images of `--reference` if it learns from data.

    Raises:
        InputError: there is no such interpreter or option, or it takes no reference.
    """
    from underfire.audit.labels import open_data
    from underfire.audit.methods import interpreter_of, values_of

    card = find("interpreter", name)
    entry = options.interpreter(name, settings, maps_only=False)
    job.check_domain("interpreter", name)
    call = interpreter_of(entry)
    if card.facts.detailed is not None:
        call = partial(card.facts.detailed, **values_of(entry))
    # each of these options multiplies the number of passes
    values = {option: parameter.default for option, parameter in card.options.items()} | entry.options
    counts = [values.get(option) for option in ("steps", "binary_search_steps", "samples")]
    passes = prod(max(count, 1) for count in counts if isinstance(count, int))
    if reference is None:
        return PreparedInterpreter(card, call, None, passes)
    if not card.fitted and "known" not in card.options:
        raise InputError(f"{name} does not learn from data; leave out --reference")
    known = open_data(reference, job.model, n=reference_n, seed=job.seed)
    if card.fitted:
        _fit(job, name, call, known)
    return PreparedInterpreter(card, call, known, passes)


def _fit(job: Job, name: str, method: Any, known: Dataset) -> None:
    """Fit an interpreter to the images of `--reference` under a progress bar."""
    from underfire.hooks import unwrap

    seen = 0

    def passed(_: Any, inputs: tuple[Tensor, ...], __: Any) -> None:
        nonlocal seen
        seen += len(inputs[0])
        show(min(seen, len(known)))

    with progress(f"fitting {name}", len(known), unit="images", quiet=job.quiet) as show:
        handle = unwrap(job.model).register_forward_hook(passed)
        try:
            method.fit(job.differentiated, known)
        finally:
            handle.remove()
        show(len(known))
