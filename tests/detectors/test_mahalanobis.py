"""The Mahalanobis detector: distances as in NumPy and scikit-learn, and its ways to combine layers."""

import numpy as np
import pytest
import torch
from sklearn.covariance import EmpiricalCovariance

import underfire as uf
from tests.networks import build_network, rand, randn
from underfire.detectors import Mahalanobis
from underfire.detectors.mahalanobis import class_gaussians, distance
from underfire.errors import DataError, Unsupported


def test_the_distance_is_that_of_scikit_learn():
    y = torch.arange(60) % 3
    values = randn(60, 5, dtype=torch.float64) @ randn(5, 5, seed=1, dtype=torch.float64) + 3 * y[:, None]
    new = 4 * randn(7, 5, seed=2, dtype=torch.float64)
    means = np.stack([values[y == k].numpy().mean(0) for k in range(3)])
    reference = EmpiricalCovariance(assume_centered=True).fit(values.numpy() - means[y])
    wanted = np.min([reference.mahalanobis(new.numpy() - mean) for mean in means], 0)
    learned = {f"0.{name}": tensor for name, tensor in class_gaussians(values, y, 3).items()}
    assert torch.allclose(distance(new, learned, 0), torch.as_tensor(wanted), rtol=1e-8)


def test_channels_that_never_change_do_not_count():
    y = torch.arange(40) % 2
    values = torch.cat([randn(40, 3, dtype=torch.float64), torch.ones(40, 2, dtype=torch.float64)], 1)
    full, part = (
        {f"0.{name}": t for name, t in class_gaussians(v, y, 2).items()} for v in (values, values[:, :3].clone())
    )
    assert torch.allclose(distance(values, full, 0), distance(values[:, :3], part, 0), atol=1e-8)


@pytest.fixture(scope="module")
def case():
    model, x = build_network(dtype=torch.float64), rand(60, 3, 8, 8, dtype=torch.float64)
    x[::2] *= torch.linspace(0.2, 1, 30, dtype=torch.float64)[:, None, None, None]
    y = model(x).argmax(1).detach()
    usual = torch.bincount(y, minlength=4) > 3
    keep = usual[y].nonzero().flatten()
    kept, names = y[keep].unique(), tuple(str(i) for i in keep.tolist())
    head = model.module[-1]
    head.weight.data, head.bias.data, head.out_features = head.weight.data[kept], head.bias.data[kept], len(kept)
    clean = uf.Batch(x[keep], model(x[keep]).argmax(1).detach(), names)
    moved = (clean.x + 0.3 * randn(*clean.x.shape, seed=3, dtype=torch.float64)).clamp(0, 1)
    wrong = (model(moved).argmax(1).detach() + 1) % len(kept)
    return model, clean, uf.Batch(moved, wrong, names)


@pytest.mark.slow
def test_layers_are_combined_as_said(case):
    model, clean, attacked = case
    layers = ("1", "3")
    both = Mahalanobis(layers=layers).fit(model, clean)
    single = [Mahalanobis(layers=name, combine="last").fit(model, clean) for name in layers]
    known, new = (torch.stack([d.score(model, x) for d in single], 1) for x in (clean.x, attacked.x))
    wanted = ((new - known.mean(0)) / known.std(0)).sum(1)
    assert torch.allclose(both.score(model, attacked.x), wanted, atol=1e-8)
    assert torch.equal(Mahalanobis(layers=layers, combine="last").fit(model, clean).score(model, clean.x), known[:, 1])
    learned = Mahalanobis(layers=layers, combine="logistic", matched_noise=False).fit(model, clean, attacked)
    assert float((learned.score(model, attacked.x) > 0).double().mean()) > 0.8


def test_input_noise_makes_the_distance_smaller(case):
    model, clean, _ = case
    plain, moved = (Mahalanobis(layers="3", combine="last", input_noise=e).fit(model, clean) for e in (0.0, 1e-3))
    assert (moved.score(model, clean.x) < plain.score(model, clean.x)).double().mean() > 0.9


def test_what_is_missing_is_said(case):
    with pytest.raises(Unsupported, match="mean"):
        Mahalanobis(combine="mean")
    model, clean, _ = case
    with pytest.raises(DataError, match="attacked"):
        Mahalanobis(combine="logistic").fit(model, clean)
