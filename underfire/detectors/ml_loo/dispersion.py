"""Statistics of the dispersion of attributions: how far the values of many pixels are spread."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def dispersion(values: Tensor, names: tuple[str, ...]) -> Tensor:
    """Return the named statistics of values `[..., P]`, `[..., S]`, in the order of the names (see `DISPERSIONS`).

    Quantiles are interpolated linearly, as those of NumPy. The skewness and the kurtosis of equal values are 0.
    """
    return torch.stack([DISPERSIONS[name](values) for name in names], -1)


def _quantile(values: Tensor, q: float) -> Tensor:
    """Return the quantile of sorted values `[..., P]`, interpolated linearly."""
    place = q * (values.shape[-1] - 1)
    low = int(place)
    high = min(low + 1, values.shape[-1] - 1)
    return torch.lerp(values[..., low], values[..., high], place - low)


def _iqr(values: Tensor) -> Tensor:
    """Return the interquartile range: the quantile of 75 % minus that of 25 %."""
    values = values.sort(-1).values
    return _quantile(values, 0.75) - _quantile(values, 0.25)


def _median_absolute_deviation(values: Tensor) -> Tensor:
    """Return the median of the distances from the median."""
    median = _quantile(values.sort(-1).values, 0.5)[..., None]
    return _quantile((values - median).abs().sort(-1).values, 0.5)


def _mean_absolute_deviation(values: Tensor) -> Tensor:
    """Return the mean of the distances from the mean."""
    return (values - values.mean(-1, keepdim=True)).abs().mean(-1)


def _moment(values: Tensor, order: int) -> Tensor:
    """Return the mean of a power of the standardised values; 0 for equal values."""
    centred = values - values.mean(-1, keepdim=True)
    std = centred.square().mean(-1, keepdim=True).sqrt()
    tiny = torch.finfo(values.dtype).tiny
    return (centred / std.clamp(min=tiny)).pow(order).mean(-1)


def _kurtosis(values: Tensor) -> Tensor:
    """Return the excess kurtosis; 0 for equal values."""
    fourth = _moment(values, 4)
    return torch.where(fourth == 0, 0.0, fourth - 3)


#: The statistics by name; variances are those of the population, as NumPy's.
DISPERSIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "iqr": _iqr,
    "std": lambda values: values.std(-1, correction=0),
    "variance": lambda values: values.var(-1, correction=0),
    "mean_absolute_deviation": _mean_absolute_deviation,
    "median_absolute_deviation": _median_absolute_deviation,
    "skewness": lambda values: _moment(values, 3),
    "kurtosis": _kurtosis,
}
