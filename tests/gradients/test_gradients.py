"""Views, smoothing and estimators against closed forms and slow loops."""

import pytest
import torch
from torch.nn import functional as F

from tests.networks import rand, randn
from underfire.attacks import pgd
from underfire.errors import InputError
from underfire.gradients import estimators, smoothing, views


@pytest.fixture
def x():
    return rand(2, 3, 20, 20)


def test_scale_copies_halve(x):
    looks = list(views.scale_copies(3)(x, None))
    assert all(torch.equal(look, x / d) for look, d in zip(looks, (1, 2, 4), strict=True))


def test_compose_looks_at_every_pair(x):
    pair = views.compose(views.scale_copies(2), views.eot(lambda v, g: v + 1, samples=3))
    looks = list(pair(x, None))
    assert [look.mean().item() for look in looks] == pytest.approx(
        [(x / d).mean().item() + 1 for d in (1, 1, 1, 2, 2, 2)]
    )


def test_input_diversity_resizes_and_pads_inside_a_larger_frame(x):
    generator = torch.Generator().manual_seed(3)
    sides, kept = set(), 0
    for _ in range(200):
        (look,) = views.input_diversity(0.5, rate=1.5)(x + 0.01, generator)
        if look.shape == x.shape:
            kept += 1
            continue
        assert look.shape == (2, 3, 30, 30)
        filled = look[0, 0] > 0
        rows, columns = filled.any(1).nonzero(), filled.any(0).nonzero()
        height, width = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
        assert height == width
        top, left = int(rows[0]), int(columns[0])
        inner = look[:, :, top : top + height, left : left + width]
        assert torch.equal(inner, F.interpolate(x + 0.01, (height, width), mode="nearest"))
        sides.add(height)
    assert sides == set(range(20, 30))
    assert 70 < kept < 130


def test_same_generator_same_looks(x):
    view = views.input_diversity(1.0)
    first, second = (next(iter(view(x, torch.Generator().manual_seed(5)))) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("kind", ["gaussian", "uniform", "linear"])
def test_translation_is_the_papers_convolution(x, kind):
    size = 5
    offset = torch.arange(size) - size // 2
    if kind == "gaussian":  # the paper's kernel covers three standard deviations
        line = torch.exp(-((offset * 3 / (size // 2)) ** 2) / 2)
    else:
        line = torch.ones(size) if kind == "uniform" else 1 - offset.abs() / (size // 2 + 1)
    kernel = torch.outer(line, line)
    kernel = kernel / kernel.sum()
    slow = F.conv2d(x, kernel.expand(3, 1, size, size), padding=size // 2, groups=3)
    assert torch.allclose(smoothing.translation_kernel(size, kind=kind)(x), slow, atol=1e-6)


def test_normalise_makes_unit_samples_and_leaves_zero_alone():
    g = torch.tensor([[3.0, -4.0], [0.0, 0.0]]).reshape(2, 1, 1, 2)
    for order, length in ((1, 7), (2, 5), (float("inf"), 4)):
        assert torch.allclose(smoothing.normalise(order)(g), g / torch.tensor([length, 1.0]).reshape(2, 1, 1, 1))


def quadratic(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(12, 12, generator=generator, dtype=dtype)
    a = a + a.T
    return lambda z: 0.5 * ((z.flatten(1) @ a) * z.flatten(1)).sum(1), lambda z: (z.flatten(1) @ a).view_as(z)


def test_estimators_find_the_gradient_of_a_quadratic():
    loss, gradient = quadratic()
    z = randn(3, 3, 2, 2, seed=2, dtype=torch.float64)
    for estimate in (estimators.autograd, estimators.finite_differences(1e-3)):
        value, g = estimate(loss, z, None)
        assert torch.allclose(value, loss(z))
        assert torch.allclose(g, gradient(z), atol=1e-8)


@pytest.mark.parametrize("samples", [50, 300])
def test_nes_is_as_good_as_theory_says(samples):
    loss, gradient = quadratic()
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(200, 3, 2, 2, generator=generator, dtype=torch.float64)
    _, g = estimators.nes(samples, sigma=1e-4)(loss, z, generator)
    cosine = F.cosine_similarity(g.flatten(1), gradient(z).flatten(1)).mean().item()
    assert cosine == pytest.approx((samples / (samples + 12)) ** 0.5, abs=0.03)


@pytest.mark.parametrize("samples", [50, 300])
def test_spsa_is_unbiased_on_a_linear_function(samples):
    """Each entry has its own slope for mean, and the others' squares, over the samples, for variance."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(3, 2, 2, generator=generator, dtype=torch.float64)
    z = torch.randn(400, 3, 2, 2, generator=generator, dtype=torch.float64)
    for estimate, own in ((estimators.spsa(samples, 0.01), 0), (estimators.nes(samples, 0.01), 1)):
        _, g = estimate(lambda v: (v * w).flatten(1).sum(1), z, generator)
        spread = ((w.square().sum() + (own * 2 - 1) * w.square()) / samples).sqrt()
        assert ((g.mean(0) - w).abs() < 4 * spread / 20).all()
        assert torch.allclose(g.std(0), spread, rtol=0.15)


def test_grouped_differences_are_the_mean_slopes_of_their_groups():
    loss, gradient = quadratic()
    generator = torch.Generator().manual_seed(2)
    z = torch.randn(3, 3, 2, 2, generator=generator, dtype=torch.float64)
    exact = gradient(z).flatten(1)
    _, g = estimators.finite_differences(1e-3, groups=5, chunk=7)(loss, z, generator)
    for row, wanted in zip(g.flatten(1), exact, strict=True):
        values, group = row.unique(return_inverse=True)
        assert len(values) == 5
        assert {int((group == k).sum()) for k in range(5)} == {2, 3}
        means = torch.stack([wanted[group == k].mean() for k in range(5)])
        assert torch.allclose(values, means, atol=1e-8)


def test_probes_go_through_the_loss_many_at_once():
    loss, _ = quadratic()
    z = randn(3, 3, 2, 2, seed=2, dtype=torch.float64)
    for estimate in (estimators.nes(10, chunk=30), estimators.spsa(10, chunk=30)):
        sizes = []
        estimate(lambda v: (sizes.append(len(v)), loss(v))[1], z, torch.Generator().manual_seed(0))  # noqa: B023
        assert sizes == [30, 30, 3]


def test_an_ascent_by_estimates_does_not_depend_on_how_many_go_at_once(relu_model, images):
    images = images[:3, :, :5, :5]
    y = relu_model(images).argmax(1)
    eps = torch.linspace(0.01, 0.1, 3)
    results = [
        pgd(relu_model, images, y, eps=eps, steps=2, random_start=False, estimate=estimate)
        for estimate in (estimators.finite_differences(0.01, chunk=c) for c in (1, 500))
    ]
    assert torch.allclose(*results, atol=2e-2)
    assert (results[0] - results[1]).abs().gt(1e-6).float().mean() < 0.02  # where a slope is all but zero


def test_bpda_has_the_values_of_one_and_the_gradient_of_the_other():
    x = torch.tensor([0.2, 0.7], requires_grad=True)
    through = estimators.bpda(torch.round, lambda v: v**2)
    y = through(x)
    assert y.tolist() == [0, 1]
    (g,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(g, 2 * x.detach())
    (g,) = torch.autograd.grad(estimators.bpda(torch.round)(x).sum(), x)
    assert g.tolist() == [1, 1]


def test_bad_settings_are_named():
    for call, words in (
        (lambda: views.eot(lambda v, g: v, samples=0), "samples >= 1"),
        (lambda: views.scale_copies(0), "copies >= 1"),
        (lambda: views.input_diversity(1.5), "probability"),
        (lambda: views.input_diversity(rate=1.0), r"rate .*1.0"),
        (lambda: smoothing.translation_kernel(4), "odd size"),
        (lambda: smoothing.translation_kernel(3, kind="box"), "unknown translation kernel"),
        (lambda: estimators.nes(0), "samples >= 1"),
        (lambda: estimators.finite_differences(0), "step > 0"),
        (lambda: estimators.finite_differences(groups=0), "groups >= 1"),
        (lambda: estimators.spsa(0), "samples >= 1"),
        (lambda: estimators.bpda(lambda v: v[:1])(rand(2)), "backward"),
    ):
        with pytest.raises(InputError, match=words):
            call()


@pytest.mark.parametrize("order", [1, 2, float("inf")])
def test_norms_are_those_of_torch(order):
    g = rand(3, 2, 4, 4) - 0.5
    g[1, 0, 0, 0] = float("nan")
    expected = torch.linalg.vector_norm(g.flatten(1), ord=order, dim=1)
    assert torch.equal(smoothing.norms(g, order).flatten().nan_to_num(-1), expected.nan_to_num(-1))
    assert smoothing.norms(g, order).shape == (3, 1, 1, 1)
