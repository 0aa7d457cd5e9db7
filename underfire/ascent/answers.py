"""Query a black box for the logits of an image and the map of its predicted class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from underfire.ascent.objectives import Interpreter
from underfire.errors import InputError, ModelError
from underfire.hooks import shared_forward, unwrap

Answers = Callable[[Tensor], tuple[Tensor, Tensor]]


@contextmanager
def explained_answers(model: nn.Module, interpreter: Interpreter | None) -> Iterator[Answers]:
    """Yield a function from images `[B, C, H, W]` to logits `[B, K]` and maps of the predicted class `[B, 1, h, w]`.

    Args:
        model: maps images to logits; without an interpreter, the module or function inside it answers with a tuple, a
            mapping or an object that holds logits and a map, as a service with explanations does.
        interpreter: `(model, x, classes) -> [B, 1, h, w]`, called for the predicted class; None reads the model's map.

    Raises:
        InputError: on a call, there is no interpreter, and the model answers without a map. ModelError: on a call, the
            map is not `[B, 1, h, w]`.
    """
    given: list[Any] = [None]

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        given[:] = [output]

    def answer(x: Tensor) -> tuple[Tensor, Tensor]:
        with shared_forward(model, begin=interpreter is not None):
            logits = model(x)
            shown = _map_in(given[0], len(x)) if interpreter is None else interpreter(model, x, logits.argmax(1))
        given[:] = [None]
        if shown.dim() != 4 or shown.shape[:2] != (len(x), 1):
            raise ModelError(f"an explanation must be one map per image, [{len(x)}, 1, h, w], got {tuple(shown.shape)}")
        return logits.detach(), shown.detach().to(x.dtype)

    # the hook sees the whole output of the module; a classifier returns only its logits
    handle = unwrap(model).register_forward_hook(keep)
    try:
        yield answer
    finally:
        handle.remove()


def _map_in(answer: Any, count: int) -> Tensor:
    """Return the map `[count, 1, h, w]` in the output of a module: the only entry with rows and columns."""
    if isinstance(answer, Mapping):
        entries = list(answer.values())
    elif isinstance(answer, (tuple, list)):
        entries = list(answer)
    else:
        entries = list(getattr(answer, "__dict__", {}).values())
    found = [e for e in entries if isinstance(e, Tensor) and e.dim() in (3, 4) and len(e) == count]
    if len(found) != 1:
        raise InputError(
            "interpreter is missing, and the model answers without a map; give an interpreter, or a model that answers "
            "with (logits [B, K], map [B, 1, h, w])"
        )
    return found[0][:, None] if found[0].dim() == 3 else found[0]
