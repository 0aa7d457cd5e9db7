"""Read logits `[B, K]` from the output of a module: a tensor, a tuple, a mapping, one number, or probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from underfire.errors import ModelError

#: The words that `output` may be, besides the key of a mapping or the position in a tuple.
OUTPUTS = ("logits", "probabilities", "binary")


def logits_in(answer: Any, output: str | int | None, count: int) -> Tensor:
    """Return the logits `[count, K]` that the answer of a module holds, with `K >= 2`.

    Without `output`, a tensor is the logits; of a mapping or an object the entry `logits` counts, and of a tuple the
    only entry `[count, K]`.

    Args:
        answer: what the module returned.
        output: `"binary"` reads one number per image as the logit of class 1 of two; `"probabilities"` takes the
            logarithm of the answer; another word or number names the entry of a mapping, an object or a tuple.
        count: the number of images.

    Raises:
        ModelError: there are no such logits in the answer; the message says what `output` would read it.
    """
    found = answer if isinstance(answer, Tensor) else _entry(answer, output, count)
    if not found.dtype.is_floating_point or found.layout != torch.strided or found.is_meta:
        kind = "a meta tensor" if found.is_meta else f"{found.dtype} {found.layout}".replace("torch.", "")
        raise ModelError(f"the model must answer with a dense tensor of floating-point logits, got {kind}")
    one = found.shape in ((count,), (count, 1))
    if output == "binary":
        if not one:
            raise ModelError(
                f"output 'binary' needs one number per image, [{count}] or [{count}, 1], got {tuple(found.shape)}"
            )
        half = found.reshape(count, 1) / 2  # the softmax of (-z/2, z/2) is (1 - sigmoid(z), sigmoid(z))
        return torch.cat([-half, half], 1)
    if one:
        raise ModelError(
            f"the model answers with one number per image, {tuple(found.shape)}; output='binary' reads it as the logit "
            "of class 1 of two classes"
        )
    if found.dim() != 2 or len(found) != count:
        raise ModelError(f"the model must map {count} images to logits [{count}, K], got {tuple(found.shape)}")
    if output == "probabilities":
        if not sums_to_one(found):
            raise ModelError("output is 'probabilities', but the rows of the model's answer do not sum to 1")
        return found.clamp_min(torch.finfo(found.dtype).tiny).log()
    return found


def sums_to_one(answer: Tensor) -> bool:
    """Return whether every row of `answer` `[B, K]` is a distribution: numbers of at least 0 that sum to 1."""
    rows = answer.detach()
    tolerance = 1e-4 if rows.dtype in (torch.float32, torch.float64) else 2e-2
    return len(rows) > 0 and bool((rows >= 0).all() & ((rows.float().sum(1) - 1).abs() < tolerance).all())


def _entry(answer: Any, output: str | int | None, count: int) -> Tensor:
    """Return the tensor that `output` names in a mapping, an object or a tuple; without a name, the only candidate."""
    wanted = "logits" if output in (None, *OUTPUTS) else output
    entries: dict[str | int, Any] = {}
    if isinstance(answer, Mapping):
        entries = dict(answer)
    elif isinstance(answer, (tuple, list)):
        entries = {
            **dict(enumerate(answer)),
            **{name: getattr(answer, name) for name in getattr(answer, "_fields", ())},
        }
    elif isinstance(getattr(answer, str(wanted), None), Tensor):
        entries = {wanted: getattr(answer, str(wanted))}
    found = entries.get(wanted)
    if found is None and output in (None, *OUTPUTS):
        found = _only({id(e): e for e in entries.values()}.values(), count, one=output == "binary")
    if isinstance(found, Tensor):
        return found
    shapes = ", ".join(f"{name!r}: {_shape(entry)}" for name, entry in list(entries.items())[:8])
    holds = f" ({shapes})" if shapes else ""
    raise ModelError(
        f"the model answers with a {type(answer).__name__}{holds}, not with logits [{count}, K]; "
        "output=NAME, or output=NUMBER of a tuple, says which entry holds them"
    )


def _only(entries: Any, count: int, *, one: bool) -> Tensor | None:
    """Return the only entry that may be the answer, `[count, K]` or with `one` a number per image; None if not one."""
    fit = [
        e
        for e in entries
        if isinstance(e, Tensor)
        and len(e.shape) in ((1, 2) if one else (2,))
        and len(e) == count
        and (e.shape[1:].numel() == 1) == one
    ]
    return fit[0] if len(fit) == 1 else None


def _shape(entry: Any) -> str:
    """Return the shape of a tensor, or the type of anything else."""
    return str(tuple(entry.shape)) if isinstance(entry, Tensor) else type(entry).__name__
