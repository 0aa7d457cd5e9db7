"""Infidelity and sensitivity against closed forms, the paper's formulas, and captum."""

import pytest
import torch

from tests.networks import rand
from underfire.errors import InputError
from underfire.measures.score_changes import infidelity, squares
from underfire.measures.sensitivity import sensitivity_max


@pytest.fixture
def linear(generator):
    """A linear model of two classes, images, and its exact maps: gradient, and contributions of the pixels."""
    x = torch.rand(4, 3, 8, 9, generator=generator, dtype=torch.float64)
    weight = torch.randn(2, 3, 8, 9, generator=generator, dtype=torch.float64)
    y = torch.tensor([0, 1, 1, 0])

    def model(x):
        return torch.einsum("bchw,kchw->bk", x, weight) + 0.7

    return model, x, y, weight[y].sum(1, keepdim=True), (weight[y] * x).sum(1, keepdim=True)


@pytest.mark.parametrize("scaled", [True, False])
def test_a_linear_model_is_explained_without_error(linear, scaled):
    model, x, y, gradient, contribution = linear
    noise = infidelity(model, x, y, gradient, perturbation="noise", scaled=scaled)
    assert (noise < 1e-20).all()
    assert (infidelity(model, x, y, contribution, scaled=scaled) < 1e-20).all()
    # The other way round each is wrong: the two kinds of change ask two kinds of maps.
    assert (infidelity(model, x, y, contribution, perturbation="noise", noise=0.1) > 1e-4).all()


def test_only_a_scaled_map_has_no_unit(linear, generator):
    model, x, y, _, contribution = linear
    wrong = contribution + torch.randn(contribution.shape, generator=generator, dtype=torch.float64)
    assert torch.allclose(infidelity(model, x, y, wrong), infidelity(model, x, y, -50 * wrong))
    assert not torch.allclose(
        infidelity(model, x, y, wrong, scaled=False), infidelity(model, x, y, 2 * wrong, scaled=False)
    )
    assert (infidelity(model, x, y, wrong) <= infidelity(model, x, y, wrong, scaled=False)).all()


@pytest.mark.slow
def test_the_error_of_a_wrong_map_in_closed_form(linear):
    """With noise of one deviation, the error of a linear map off by d is the noise's variance times |d|²."""
    model, x, y, gradient, _ = linear
    wrong = gradient.clone()
    wrong[:, 0, 3, 3] += 2.0
    found = infidelity(model, x, y, wrong, perturbation="noise", noise=0.5, samples=20_000, scaled=False)
    assert torch.allclose(found, torch.full_like(found, 0.25 * 4), rtol=0.05)


def test_squares_are_squares(generator):
    found = squares(200, (8, 9), 3, generator)
    assert found.shape == (200, 1, 8, 9)
    assert (found.sum((1, 2, 3)) == 9).all()
    assert (found.any(3).sum((1, 2)) == 3).all()
    assert found.any(0).all()


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("perturbation", ["noise", "squares"])
def test_as_captum(network, generator, perturbation, scaled):
    metrics = pytest.importorskip("captum.metrics")
    model = network("smooth", torch.float64)
    x = torch.rand(3, 3, 8, 8, generator=generator, dtype=torch.float64)
    y, samples = torch.tensor([0, 1, 3]), 16
    m = torch.randn(3, 1, 8, 8, generator=generator, dtype=torch.float64)
    draw = torch.Generator().manual_seed(0)
    if perturbation == "noise":
        changes = 0.1 * torch.randn(samples, 1, 8, 8, generator=draw).double()
    else:
        changes = squares(samples, (8, 8), 2, draw).double()

    def perturb(images):  # captum repeats each image `samples` times
        change = changes.repeat(3, 1, 1, 1).expand_as(images)
        if perturbation == "noise":
            return change, images - change
        # I is the indicator of the square; one channel of the attribution carries all of it
        return change, images * (1 - change)

    attributions = torch.cat([m, torch.zeros_like(m), torch.zeros_like(m)], 1)
    wanted = metrics.infidelity(model, perturb, x, attributions, target=y, n_perturb_samples=samples, normalize=scaled)
    found = infidelity(model, x, y, m, perturbation=perturbation, samples=samples, noise=0.1, patch=2, scaled=scaled)
    assert torch.allclose(found, wanted.detach())


def test_probabilities_instead_of_logits(linear):
    model, x, y, gradient, _ = linear
    small = infidelity(model, x, y, gradient, perturbation="noise", noise=1e-4, probability=True)
    p = model(x).softmax(1).gather(1, y[:, None])
    wrong_unit = infidelity(model, x, y, gradient, perturbation="noise", noise=1e-4, probability=True, scaled=False)
    assert (small < wrong_unit).all()
    assert (p < 1).all()


def test_a_constant_map_predicts_too(generator):
    """It is right where all pixels count alike; zeros err by the whole change."""
    x, y = torch.rand(2, 1, 6, 6, generator=generator, dtype=torch.float64), torch.tensor([0, 0])

    def model(x):
        return torch.stack([3 * x.sum((1, 2, 3)), x.sum((1, 2, 3))], 1)

    flat = torch.full((2, 1, 6, 6), 3.0, dtype=torch.float64)
    given = {"perturbation": "noise", "noise": 0.1, "samples": 5000, "scaled": False}
    assert infidelity(model, x, y, flat, **given).max() < 1e-20
    assert torch.allclose(infidelity(model, x, y, 0 * flat, **given), (0.1 * flat).square().sum((1, 2, 3)), rtol=0.1)


def test_what_infidelity_cannot_say(linear):
    model, x, y, gradient, _ = linear
    m = gradient.clone()
    m[2, 0, 0, 0] = torch.inf
    for scaled in (True, False):
        assert infidelity(model, x, y, m, scaled=scaled).isnan().tolist() == [False, False, True, False]
    with pytest.raises(InputError, match="'rain' .* noise, squares"):
        infidelity(model, x, y, m, perturbation="rain")
    with pytest.raises(InputError, match="patch .* 1 to 8.* 9"):
        infidelity(model, x, y, m, patch=9)
    with pytest.raises(InputError, match="samples.* 1, got 0"):
        infidelity(model, x, y, m, samples=0)
    with pytest.raises(InputError, match="images and maps"):
        infidelity(model, x, y, m[:1])


def test_a_map_that_does_not_move_is_not_sensitive(linear):
    model, x, y, *_ = linear

    def gradient(model, x, y):
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            (g,) = torch.autograd.grad(model(point).gather(1, y[:, None]).sum(), point)
        return g.sum(1, keepdim=True)

    assert torch.equal(sensitivity_max(model, x, y, gradient), torch.zeros(4, dtype=torch.float64))


@pytest.mark.parametrize("chunk", [1, 3, None])
def test_sensitivity_by_the_formula(linear, chunk):
    """Of a map that is the image's first channel, the change is the drawn one itself."""
    model, x, y, *_ = linear
    found = sensitivity_max(model, x, y, lambda _, x, __: x[:, :1], eps=0.1, samples=6, chunk=chunk)
    draw = torch.Generator().manual_seed(0)
    delta = 0.1 * (2 * torch.rand(6, 3, 8, 9, generator=draw).double() - 1)
    wanted = delta[:, 0].flatten(1).norm(dim=1).max() / x[:, 0].flatten(1).norm(dim=1)
    assert torch.allclose(found, wanted)


def test_sensitivity_as_captum(network, generator):
    metrics = pytest.importorskip("captum.metrics")
    model = network("relu")
    x, y = torch.rand(3, 3, 8, 8, generator=generator), torch.tensor([0, 1, 3])

    def shown(model, x, y):
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            (g,) = torch.autograd.grad(model(point).gather(1, y[:, None]).sum(), point)
        return g.abs().amax(1, keepdim=True)

    delta = 0.02 * (2 * rand(10, 3, 8, 8) - 1)
    wanted = metrics.sensitivity_max(
        lambda images, target: (shown(model, images[0] if isinstance(images, tuple) else images, target),),
        x,
        lambda images: images + delta.repeat(3, 1, 1, 1),
        n_perturb_samples=10,
        target=y,
    )
    assert torch.allclose(sensitivity_max(model, x, y, shown), wanted, rtol=1e-5)


def test_what_sensitivity_cannot_say(linear):
    model, x, y, *_ = linear
    assert sensitivity_max(model, x, y, lambda _, x, __: 0 * x[:, :1]).isnan().all()
    with pytest.raises(InputError, match="eps .* samples .* 10"):
        sensitivity_max(model, x, y, lambda _, x, __: x[:, :1], eps=0)
