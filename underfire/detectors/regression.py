"""Logistic regression on the features of clean and attacked inputs, for the detectors that learn from both."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from underfire.detectors.evaluated import Evaluated
from underfire.errors import DataError

_FOLDS = 5
_STRENGTHS = tuple(10.0**power for power in range(-4, 5))  # scikit-learn's C


def fit_regression(clean: Tensor, attacked: Tensor) -> dict[str, Tensor]:
    """Return the tensors of a logistic regression that tells attacked from clean inputs; `log_odds` reads them.

    The features are standardised over both together. Cross-validation with five folds chooses the strength of the
    regularisation; with fewer than five inputs of a kind, it is that of scikit-learn's default.

    Args:
        clean: features of inputs that are not attacked, `[n, F]`.
        attacked: features of attacked inputs, `[m, F]`.
    """
    features = torch.cat([clean, attacked]).detach().double()
    mean, scale = features.mean(0), features.std(0, correction=0)
    scale = torch.where(scale > 0, scale, 1.0)
    rows = ((features - mean) / scale).cpu().numpy()
    label = np.repeat([0, 1], [len(clean), len(attacked)])
    fitted = _fitted(rows, label, _best_strength(rows, label))
    return {
        "regression.mean": mean,
        "regression.scale": scale,
        "regression.weight": torch.from_numpy(fitted.coef_[0]).to(mean),
        "regression.bias": torch.tensor(fitted.intercept_[0]).to(mean),
    }


def _fitted(rows: Any, label: Any, strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=2000).fit(rows, label)


def _best_strength(rows: Any, label: Any) -> float:
    """Return the inverse strength of the regularisation with the largest likelihood on the parts that are left out."""
    from sklearn.model_selection import StratifiedKFold

    if min(np.bincount(label)) < _FOLDS:
        return 1.0
    likelihood = dict.fromkeys(_STRENGTHS, 0.0)
    for learn, test in StratifiedKFold(_FOLDS, shuffle=True, random_state=0).split(rows, label):
        for strength in _STRENGTHS:
            odds = _fitted(rows[learn], label[learn], strength).decision_function(rows[test])
            likelihood[strength] -= float(np.logaddexp(0, np.where(label[test] == 1, -odds, odds)).sum())
    return max(likelihood, key=lambda strength: likelihood[strength])


def log_odds(features: Tensor, learned: dict[str, Tensor]) -> Tensor:
    """Return the log-odds that inputs with features `[B, F]` are attacked, `[B]`."""
    mean, scale, weight, bias = (learned[f"regression.{name}"] for name in ("mean", "scale", "weight", "bias"))
    return ((features - mean) / scale) @ weight + bias


def noisy_like(clean: Evaluated, attacked: Evaluated) -> Tensor:
    """Return clean inputs with Gaussian noise of the mean L2 size of the attack, `[n, ...]`, clipped to `[0, 1]`.

    The size is measured on the attacked inputs that have the identifier of a clean input.

    Raises:
        DataError: no attacked input has the identifier of a clean input.
    """
    row, counterpart = counterparts(clean, attacked)
    if not len(row):
        raise DataError(
            "the noise is as large as the attack, which is measured on attacked inputs with the ids of clean ones; "
            f"none of {len(attacked)} has one; keep the ids, or set matched_noise to false"
        )
    size = (attacked.x[row] - clean.x[counterpart]).flatten(1).norm(dim=1).mean()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(clean.x.shape, generator=generator, dtype=torch.float64).to(clean.x)
    norm = noise.flatten(1).norm(dim=1).view(-1, *[1] * (noise.dim() - 1))
    return (clean.x + size * noise / norm).clamp(0, 1)


def counterparts(clean: Evaluated, attacked: Evaluated) -> tuple[Tensor, Tensor]:
    """Return the rows of attacked inputs that have the identifier of a clean input, and the rows of the latter."""
    place = {name: row for row, name in enumerate(clean.ids)}
    pairs = [(row, place[name]) for row, name in enumerate(attacked.ids) if name in place]
    found = torch.tensor(pairs, dtype=torch.int64, device=clean.x.device).view(-1, 2)
    return found[:, 0], found[:, 1]
