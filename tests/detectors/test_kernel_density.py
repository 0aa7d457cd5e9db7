"""Kernel density as in scikit-learn, Bayesian uncertainty as in a loop, and the regression on both."""

import pytest
import torch
from sklearn.neighbors import KernelDensity as Reference
from torch import nn

import underfire as uf
from tests.networks import build_network, rand, randn
from underfire.detectors import BayesianUncertainty, KernelDensity, KernelDensityAndUncertainty, load
from underfire.detectors.kernel_density.densities import best_bandwidth, class_log_density, log_density
from underfire.errors import DataError, InputError, Unsupported


@pytest.mark.parametrize("bandwidth", [0.26, 1.2])
def test_the_density_of_each_class_is_that_of_scikit_learn(bandwidth):
    known, x = randn(30, 5, dtype=torch.float64), randn(6, 5, seed=1, dtype=torch.float64)
    classes, y = torch.arange(30) % 3, torch.tensor([2, 0, 1, 1, 2, 2])
    found = class_log_density(x, y, known, classes, bandwidth, held_out=False)
    for k in range(3):
        reference = Reference(bandwidth=bandwidth).fit(known[classes == k])
        assert torch.allclose(found[y == k], torch.as_tensor(reference.score_samples(x[y == k])), atol=1e-9)


def test_held_out_leaves_out_the_input_itself():
    known = randn(12, 4, dtype=torch.float64)
    found = log_density(known, known, 0.7, held_out=True)
    for i in range(12):
        others = torch.cat([known[:i], known[i + 1 :]])
        assert torch.allclose(found[i], log_density(known[i : i + 1], others, 0.7, held_out=False)[0], atol=1e-10)
    assert (log_density(known, known, 0.7, held_out=False) > found).all()


@pytest.mark.slow
def test_the_chosen_bandwidth_is_near_the_best_for_a_normal_distribution():
    known = 3 * randn(400, 1, dtype=torch.float64)
    best = float(best_bandwidth(known, torch.zeros(400, dtype=torch.int64)))
    rule = 3 * (4 / (3 * 400)) ** 0.2  # Silverman's rule
    assert 0.5 * rule < best < 2 * rule


def with_dropout(p=0.4):
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Dropout(p), nn.Linear(6, 3)).double()
    with torch.no_grad():
        for seed, weight in enumerate(network.parameters()):
            weight.copy_(randn(*weight.shape, seed=seed, dtype=torch.float64))
        logits = network.eval()(rand(30, 3, 2, 2, dtype=torch.float64))  # each class must be predicted
        network[-1].weight.div_(logits.std(0)[:, None])
        network[-1].bias.sub_(logits.mean(0)).div_(logits.std(0))
    return uf.Classifier(network)


def labelled(model, n=30, *, wrong=False, seed=0, noise=0.0):
    x = rand(n, 3, 2, 2, seed=seed, dtype=torch.float64)
    y = model(x).argmax(1).detach()
    moved = (x + noise * randn(*x.shape, seed=9, dtype=torch.float64)).clamp(0, 1)
    return uf.Batch(moved, (model(moved).argmax(1) + 1) % 3 if wrong else y, tuple(map(str, range(n))))


def test_uncertainty_is_the_variance_over_thinned_networks():
    model, x = with_dropout(), rand(5, 3, 2, 2, dtype=torch.float64)
    detector = BayesianUncertainty(samples=7).fit(model, labelled(model))
    generator, hidden = torch.Generator().manual_seed(int(detector.learned["seed"])), model.module[:3](x)
    passes = []
    for _ in range(7):
        kept = torch.rand(1, 6, generator=generator, dtype=torch.float64) >= 0.4
        passes.append(model.module[4](hidden * kept / 0.6).softmax(1))
    wanted = torch.stack(passes).var(0, correction=0).mean(1)
    assert torch.allclose(detector.score(model, x), wanted, atol=1e-12)
    other = BayesianUncertainty(samples=7, generator=torch.Generator().manual_seed(3)).fit(model, labelled(model))
    assert not torch.equal(other.score(model, x), detector.score(model, x))


@pytest.mark.slow
def test_the_regression_reads_both_scores(tmp_path):
    model = with_dropout()
    clean, attacked = labelled(model), labelled(model, wrong=True, noise=0.4)
    made = KernelDensityAndUncertainty(samples=6, generator=torch.Generator().manual_seed(1))
    made.fit(model, clean, attacked).save(tmp_path / "kd-bu")
    loaded = load(tmp_path / "kd-bu")
    density, uncertainty = KernelDensity().fit(model, clean), BayesianUncertainty(samples=6)
    uncertainty.fit(model, clean).learned = {"seed": made.learned["seed"]}
    features = torch.stack([d.score(model, attacked.x) for d in (density, uncertainty)], 1)
    mean, scale, weight, bias = (made.learned[f"regression.{n}"] for n in ("mean", "scale", "weight", "bias"))
    assert torch.allclose(loaded.score(model, attacked.x), ((features - mean) / scale) @ weight + bias, atol=1e-8)


def test_the_paper_mode_counts_an_image_that_was_learned():
    model = with_dropout()
    clean = labelled(model)
    honest, script = KernelDensity(bandwidth="cifar10"), KernelDensity(bandwidth="cifar10", held_out=False)
    assert float(honest.fit(model, clean).learned["bandwidth"]) == 0.26
    assert (honest.score(model, clean.x) > script.fit(model, clean).score(model, clean.x)).all()
    new = rand(4, 3, 2, 2, seed=5, dtype=torch.float64)
    assert torch.allclose(honest.score(model, new), script.score(model, new))


@pytest.mark.slow
def test_what_does_not_fit_is_refused():
    for wrong in (0.0, -1.0, "imagenet"):
        with pytest.raises(InputError, match="bandwidth"):
            KernelDensity(bandwidth=wrong)
    plain = build_network()
    x = rand(4, 3, 6, 6)
    clean = uf.Batch(x, plain(x).argmax(1), ("a", "b", "c", "d"))
    with pytest.raises(Unsupported, match="nn.Dropout"):
        BayesianUncertainty().fit(plain, clean)
    model = with_dropout()
    renamed = labelled(model, wrong=True, seed=4)
    renamed = uf.Batch(renamed.x, renamed.y, tuple(f"other {i}" for i in range(30)))
    with pytest.raises(DataError, match="matched_noise"):
        KernelDensityAndUncertainty(samples=2).fit(model, labelled(model), renamed)
    KernelDensityAndUncertainty(samples=2, matched_noise=False).fit(model, labelled(model), renamed)
