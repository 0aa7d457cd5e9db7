"""Recognise the rectifiers that a torch function computes by its name."""

from __future__ import annotations

from collections.abc import Callable

from underfire.hooks.rectifiers.calls import Arguments, Rectifier


def _relu(a: Arguments) -> Rectifier:
    return Rectifier(a.z, in_place=bool(a.get(1, "inplace")))


def _relu6(a: Arguments) -> Rectifier:
    return Rectifier(a.z, cap=6.0, in_place=bool(a.get(1, "inplace")))


def _hardtanh(a: Arguments) -> Rectifier | None:
    low, high = a.get(1, "min_val", default=-1.0), a.get(2, "max_val", default=1.0)
    return Rectifier(a.z, cap=float(high), in_place=bool(a.get(3, "inplace"))) if low == 0 else None


def _leaky_relu(a: Arguments) -> Rectifier:
    slope = a.get(1, "negative_slope", default=0.01)
    return Rectifier(a.z, slope, in_place=bool(a.get(2, "inplace")))


def _prelu(a: Arguments) -> Rectifier:
    slope = a.get(1, "weight").detach()
    shape = [1, -1, *[1] * (a.z.dim() - 2)] if slope.dim() == 1 and slope.numel() > 1 else slope.shape
    return Rectifier(a.z, slope.reshape(shape))


def _rrelu(a: Arguments) -> Rectifier | None:
    if a.get(3, "training"):  # its slopes are random
        return None
    slope = (a.get(1, "lower", default=1 / 8) + a.get(2, "upper", default=1 / 3)) / 2
    return Rectifier(a.z, slope, in_place=a.get(4, "inplace") is True)


def _threshold(a: Arguments) -> Rectifier | None:
    fits = a.get(1, "threshold") == 0 and a.get(2, "value") == 0
    return Rectifier(a.z, in_place=a.get(3, "inplace") is True) if fits else None


BY_NAME: dict[str, Callable[[Arguments], Rectifier | None]] = {
    "relu": _relu,
    "relu6": _relu6,
    "hardtanh": _hardtanh,
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "_prelu_kernel": _prelu,
    "rrelu": _rrelu,
    "threshold": _threshold,
    "_threshold": _threshold,  # what `F.threshold` is called inside
}
