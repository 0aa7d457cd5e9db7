"""Local intrinsic dimensionality: data of a known dimension, and a slow loop."""

import pytest
import torch

import underfire as uf
from tests.networks import build_network, rand, randn
from underfire.detectors import LID
from underfire.detectors.distances import squared_distances
from underfire.detectors.lid import dimensionality
from underfire.errors import DataError, InputError


@pytest.mark.parametrize("dimension", [1, 2, 5, 10])
def test_the_estimate_is_the_dimension_of_a_flat_piece_of_space(dimension):
    # points in a cube of few dimensions, turned into a space of 20; at its centre, the estimate has no border
    turn = torch.linalg.qr(randn(20, 20, dtype=torch.float64)).Q[:dimension]
    known = (2 * rand(20000, dimension, dtype=torch.float64) - 1) @ turn
    centre = 0.05 * randn(40, dimension, seed=1, dtype=torch.float64) @ turn
    found = dimensionality(squared_distances(centre, known), 100)
    # the estimate of a point has the standard error dimension / sqrt(k); those of points nearby are not independent
    assert abs(float(found.mean()) - dimension) < 0.15 * dimension + 0.02


def test_the_estimate_is_the_formula_of_the_paper():
    x, known, k = randn(4, 3, dtype=torch.float64), randn(30, 3, seed=1, dtype=torch.float64), 6
    found = dimensionality(squared_distances(x, known), k)
    for row in range(4):
        r = sorted(float((x[row] - point).norm()) for point in known)[:k]
        logs = [torch.tensor(distance / r[-1]).log() for distance in r]
        assert abs(float(found[row]) + 1 / float(sum(logs) / k)) < 1e-4
    assert torch.isfinite(dimensionality(torch.ones(2, 9), 4)).all()


def labelled(model, n=40, *, wrong=False, size=0.0):
    x = rand(n, 3, 8, 8, dtype=torch.float64)
    x = (x + size * randn(*x.shape, seed=2, dtype=torch.float64)).clamp(0, 1)
    y = model(x).argmax(1).detach()
    return uf.Batch(x, (y + 1) % 4 if wrong else y, tuple(map(str, range(n))))


@pytest.mark.slow
def test_no_image_is_compared_with_itself_or_its_original():
    model = build_network(dtype=torch.float64)
    clean, attacked = labelled(model), labelled(model, wrong=True, size=0.5)
    detector = LID(k=5, samples=20, layers="3", matched_noise=False).fit(model, clean, attacked)
    known = detector.learned["0.known"]
    features = model.module[:4]((clean.x - 0.5) / 0.25).mean((2, 3)).detach()
    near = (features[:, None] - known).norm(dim=2)
    drawn = near.amin(1) < 1e-9
    assert int(drawn.sum()) == 20
    others = near.masked_fill(near < 1e-9, torch.inf)
    clean_lid = dimensionality(others.square(), 5)
    moved = (model.module[:4]((attacked.x - 0.5) / 0.25).mean((2, 3)).detach()[:, None] - known).norm(dim=2)
    moved_lid = dimensionality(moved.masked_fill(near < 1e-9, torch.inf).square(), 5)
    assert torch.allclose(torch.cat([clean_lid, moved_lid]).mean(), detector.learned["regression.mean"][0], atol=1e-6)


def test_too_few_images_or_neighbours_are_refused():
    model = build_network(dtype=torch.float64)
    with pytest.raises(InputError, match="samples"):
        LID(k=20, samples=20)
    with pytest.raises(DataError, match="100"):
        LID().fit(model, labelled(model), labelled(model, wrong=True))
    with pytest.raises(DataError, match="attacked"):
        LID(k=5, samples=20).fit(model, labelled(model))
