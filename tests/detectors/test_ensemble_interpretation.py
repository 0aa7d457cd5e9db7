"""Ensemble interpretation: standardised disagreement of maps."""

import pytest
import torch

import underfire as uf
from tests.networks import build_network, rand
from underfire.detectors import EnsembleInterpretation
from underfire.errors import DataError, InputError
from underfire.measures.maps import map_l1


def batch(n=12, seed=0):
    x = rand(n, 3, 12, 12, seed=seed)
    return uf.Batch(x, torch.zeros(n, dtype=torch.int64), tuple(map(str, range(n))))


def red(model, x, y):
    return x[:, :1]


def green(model, x, y):
    return x[:, 1:2]


def blue(model, x, y):
    return x[:, 2:]


def test_the_score_is_the_mean_of_standardised_distances_of_pairs():
    model, known, x = build_network(), batch(), batch(4, seed=1).x
    detector = EnsembleInterpretation(interpreters=(red, green, blue)).fit(model, known)

    def distances(x):
        maps = [x[:, i : i + 1] for i in range(3)]
        return torch.stack([map_l1(maps[i], maps[j]) for i, j in ((0, 1), (0, 2), (1, 2))], 1)

    clean = distances(known.x)
    wanted = ((distances(x) - clean.mean(0)) / clean.std(0)).mean(1)
    assert torch.allclose(detector.score(model, x), wanted, atol=1e-5)
    own = detector.score(model, known.x)
    assert abs(float(own.mean())) < 1e-5


def test_maps_meet_on_the_coarsest_grid():
    model = build_network()
    maps = EnsembleInterpretation().maps(model, batch().x, torch.zeros(12, dtype=torch.int64))
    assert [tuple(m.shape) for m in maps] == [(12, 1, 6, 6)] * 2
    assert all(float(m.amax()) == 1 for m in maps)


def test_functions_cannot_be_saved(tmp_path):
    detector = EnsembleInterpretation(interpreters=(red, green)).fit(build_network(), batch())
    with pytest.raises(InputError, match="function"):
        detector.save(tmp_path / "file")


@pytest.mark.parametrize("wrong", ["gradient", 5, ("gradient", 5), (["gradient"], ["grad_cam"])])
def test_interpreters_are_a_list_of_names_and_functions(wrong):
    with pytest.raises(InputError):
        EnsembleInterpretation(interpreters=wrong)


@pytest.mark.parametrize("clean", [batch().x, None, [1]])
def test_a_detector_learns_from_a_batch(clean):
    with pytest.raises(DataError, match="Batch"):
        EnsembleInterpretation().fit(build_network(), clean)


@pytest.mark.parametrize("wrong", [(), ("gradient",), ("grad_camm",), ("prototypes",)])
def test_an_ensemble_needs_two_interpreters_that_give_maps(wrong):
    with pytest.raises(InputError):
        EnsembleInterpretation(interpreters=("gradient", *wrong))
