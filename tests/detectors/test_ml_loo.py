"""ML-LOO: attributions of a linear model in closed form, of a network by a loop, and statistics as in SciPy."""

import pytest
import torch
from scipy import stats

import underfire as uf
from tests.networks import build_network, linear, rand, randn
from underfire.detectors import MLLOO
from underfire.detectors.ml_loo.dispersion import DISPERSIONS, dispersion
from underfire.errors import DataError, InputError, Unsupported


def batch(model, n, *, wrong=False, seed=0, size=(5, 4)):
    x = rand(n, 3, *size, seed=seed)
    with torch.no_grad():
        y = model(x).argmax(1)
    return uf.Batch(x, (y + 1) % 4 if wrong else y, tuple(map(str, range(n))))


def test_attributions_of_a_linear_model_are_its_weights_times_the_removed_values():
    weight, x = randn(4, 60, dtype=torch.float64), rand(2, 3, 5, 4, dtype=torch.float64)
    model = uf.Classifier(linear(weight))
    found = MLLOO(output="logit", fill=0.25).attributions(model, x, ())
    wanted = (x.flatten(1) - 0.25)[:, :, None] * weight.T
    assert torch.allclose(found[..., :4], wanted, atol=1e-12)
    y = model(x).argmax(1)
    assert torch.allclose(found[..., 4], wanted.gather(2, y[:, None, None].expand(-1, 60, 1))[..., 0], atol=1e-12)


@pytest.mark.slow
def test_attributions_are_a_loop_over_pixels_and_channels():
    model, x = build_network(dtype=torch.float64), rand(2, 3, 5, 4, dtype=torch.float64)
    with torch.no_grad():
        y = model(x).argmax(1)

        def neurons(x):
            hidden = model.module[:2]((x - 0.5) / 0.25).mean((2, 3))
            p = model(x).softmax(1)
            return torch.cat([hidden, p, p.gather(1, y[:, None])], 1)

        rows = []
        for place in range(60):
            removed = x.flatten(1).clone()
            removed[:, place] = 0
            rows.append(neurons(x) - neurons(removed.view_as(x)))
    for reuse in (True, False):
        found = MLLOO(reuse=reuse).attributions(model, x, ("1",))
        assert torch.allclose(found, torch.stack(rows, 1), atol=1e-12)


def test_dispersions_are_those_of_scipy():
    values = randn(3, 50, dtype=torch.float64)
    values[2] = 1.5
    wanted = {
        "iqr": stats.iqr(values, axis=1),
        "std": values.numpy().std(1),
        "variance": values.numpy().var(1),
        "mean_absolute_deviation": abs(values - values.mean(1, keepdim=True)).mean(1),
        "median_absolute_deviation": stats.median_abs_deviation(values, axis=1),
        "skewness": [*stats.skew(values[:2], axis=1), 0],
        "kurtosis": [*stats.kurtosis(values[:2], axis=1), 0],
    }
    found = dispersion(values, tuple(DISPERSIONS))
    for column, name in enumerate(DISPERSIONS):
        assert torch.allclose(found[:, column], torch.as_tensor(wanted[name], dtype=torch.float64), atol=1e-12), name


@pytest.mark.slow
def test_flat_images_are_told_from_noisy_ones_and_groups_change_nothing():
    model = build_network()
    clean, attacked = batch(model, 12), batch(model, 8, wrong=True, seed=1)
    clean.x.mul_(0.05).add_(0.5)
    clean = uf.Batch(clean.x, model(clean.x).argmax(1), clean.ids)
    detector = MLLOO(reuse=False, dispersion=("iqr", "std")).fit(model, clean, attacked)
    assert detector.score(model, clean.x).amax() < detector.score(model, attacked.x).amin()
    alone = MLLOO(reuse=False, dispersion=("iqr", "std"), memory=0.05).fit(model, clean, attacked)
    assert torch.allclose(alone.score(model, clean.x), detector.score(model, clean.x), atol=1e-4)


def test_wrong_options_and_a_fit_without_attacked_inputs_are_refused():
    with pytest.raises(Unsupported, match="irq"):
        MLLOO(dispersion="irq")
    with pytest.raises(InputError, match="dispersion"):
        MLLOO(dispersion=())
    with pytest.raises(Unsupported, match="score"):
        MLLOO(output="score")
    model = build_network()
    with pytest.raises(DataError, match="attacked"):
        MLLOO().fit(model, batch(model, 4))
