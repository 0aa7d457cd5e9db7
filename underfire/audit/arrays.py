"""Lossless compression of tensors for storage.

The bytes of the elements are regrouped, all first bytes together, then all second bytes, and so on, because
neighbouring elements have similar signs and exponents. Then everything is compressed by Zstandard.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import pyarrow as pa
import torch
from torch import Tensor

from underfire.errors import DataError

_WRONG = (ValueError, KeyError, TypeError, AttributeError, RuntimeError, OSError, OverflowError, MemoryError)
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def pack(arrays: Mapping[str, Tensor]) -> bytes:
    """Compress tensors of any dtype and shape to bytes; `unpack` returns exactly the same tensors."""
    from safetensors.torch import save

    plain = {name: value.detach().cpu().contiguous() for name, value in arrays.items()}
    split = {name: _bytes(value).view(-1, value.element_size()).T.contiguous() for name, value in plain.items()}
    kinds = {name: [str(value.dtype).removeprefix("torch."), list(value.shape)] for name, value in plain.items()}
    content = save(split, {"kinds": json.dumps(kinds)})
    return len(content).to_bytes(8, "little") + bytes(pa.compress(content, codec="zstd", asbytes=True))


def unpack(content: bytes) -> dict[str, Tensor]:
    """Return the tensors that `pack` compressed, on the CPU.

    Raises:
        DataError: the bytes are not what `pack` returns.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    size = int.from_bytes(content[:8], "little")
    try:
        plain = bytes(pa.decompress(content[8:], decompressed_size=size, codec="zstd", asbytes=True))
        header = json.loads(plain[8 : 8 + int.from_bytes(plain[:8], "little")])
        kinds = json.loads(header["__metadata__"]["kinds"])
        split = load(plain)
        return {
            name: split[name].T.contiguous().flatten().view(getattr(torch, dtype)).reshape(shape)
            for name, (dtype, shape) in kinds.items()
        }
    except (pa.ArrowException, SafetensorError, *_WRONG) as error:
        raise DataError(f"packed tensors cannot be read: {' '.join(str(error).split())[:200]}") from None


def difference(x_adv: Tensor, x: Tensor) -> Tensor:
    """Return the exclusive or of the bits, as integers of the same shape.

    The result is exact, and compresses well because most bits are zero where the images are close.
    """
    bits = _BITS[x.element_size()]
    return x_adv.contiguous().view(bits) ^ x.contiguous().view(bits)


def restore(bits: Tensor, x: Tensor) -> Tensor:
    """Return `x_adv`, equal in every bit, from `bits = difference(x_adv, x)`."""
    return (bits ^ x.contiguous().view(bits.dtype)).view(x.dtype)


def _bytes(value: Tensor) -> Tensor:
    return value.flatten().view(torch.uint8)
