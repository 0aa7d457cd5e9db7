"""LIME against closed forms, a slow regression, and the lime package."""

import numpy as np
import pytest
import torch
from torch import nn

import underfire as uf
from tests.networks import linear, rand, randn
from underfire.attribution.coalitions import DESIGNS, coalitions
from underfire.attribution.superpixels import SUPERPIXELS, mean_colours, paint_segments, segment
from underfire.errors import InputError, ModelError, Unsupported
from underfire.interpreters import lime, lime_fit, lime_stability


@pytest.fixture
def case(network, generator):
    x = torch.rand(3, 3, 16, 20, generator=generator, dtype=torch.float64)
    return network("relu", torch.float64), x, torch.tensor([0, 1, 2])


def sum_of_pixels(height, width, classes=3, seed=0):
    """A model whose logits are sums over pixels."""
    return uf.Classifier(linear(randn(classes, 3 * height * width, seed=seed).double()))


@pytest.mark.parametrize("design", DESIGNS)
def test_a_model_that_is_a_sum_over_superpixels_is_fitted_to_the_penalty(case, design):
    """What a superpixel adds is then its own part of the logit, whatever is drawn."""
    _, x, y = case
    model = sum_of_pixels(16, 20)
    options = {"superpixels": "grid", "segments": 20, "samples": 3000, "fill": "black", "design": design}
    fit = lime_fit(model, x, y, **options)
    parts = (model.module[1].weight[y].view_as(x) * x).sum(1)
    wanted = torch.zeros_like(fit.weights).scatter_add(1, fit.segments.flatten(1), parts.flatten(1))
    assert torch.allclose(fit.weights, wanted, atol=0.02 * wanted.abs().max().item())
    assert (fit.r2 > 0.9999).all()


@pytest.mark.slow
@pytest.mark.parametrize("output", ["logit", "probability"])
def test_weights_and_r2_are_those_of_scikit_learn(case, output):
    """A slow regression, one image at a time, on answers asked one by one; images differ in their superpixels."""
    from sklearn.linear_model import Ridge

    model, x, y = case
    pieces = torch.stack([segment(x[:1], "grid", n)[0] for n in (6, 9, 20)])
    fit = lime_fit(model, x, y, superpixels=pieces, samples=101, output=output)
    means = mean_colours(x, pieces)
    seed = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(0)))
    for i, count in enumerate([6, 9, 20]):
        z = coalitions(101, count, "orthogonal", torch.Generator().manual_seed(seed))
        answers = []
        for row in z:
            seen = torch.where(row[pieces[i]], x[i], means[i])
            logits = model(seen[None])[0]
            answers.append((logits if output == "logit" else logits.softmax(0))[y[i]].item())
        similarity = z.sum(1).numpy() / np.sqrt(z.sum(1).clamp_min(1).numpy() * count)
        kernel = np.sqrt(np.exp(-((1 - similarity) ** 2) / 0.25**2))
        ridge = Ridge(alpha=1).fit(z.numpy(), answers, sample_weight=kernel)
        assert np.allclose(fit.weights[i, :count], ridge.coef_)
        assert (fit.weights[i, count:] == 0).all()
        assert np.isclose(fit.intercept[i], ridge.intercept_)
        assert np.isclose(fit.r2[i], ridge.score(z.numpy(), answers, sample_weight=kernel))


@pytest.mark.slow
def test_the_lime_package_finds_the_same(case):
    """On the same superpixels with many samples: both estimate one regression, each with its own draws."""
    package = pytest.importorskip("lime.lime_image")
    model, x, y = case
    pieces = segment(x, "grid", 12)

    def classify(images):
        return model(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()

    explainer = package.LimeImageExplainer(random_state=0)
    with torch.no_grad():
        peer = explainer.explain_instance(
            x[0].permute(1, 2, 0).numpy(),
            classify,
            labels=(0,),
            top_labels=None,
            num_samples=3000,
            segmentation_fn=lambda _: pieces[0].numpy(),
        )
    theirs = torch.tensor([weight for _, weight in sorted(peer.local_exp[0])], dtype=torch.float64)
    ours = lime_fit(model, x[:1], y[:1], superpixels=pieces[:1], samples=3000)
    assert (ours.weights[0] - theirs).norm() < 0.05 * theirs.norm()
    assert abs(ours.r2[0] - peer.score) < 0.02


def test_opposites_cancel_what_two_superpixels_do_together(case):
    """With a quadratic answer the same number of samples is far nearer to the truth, though it fits no better."""
    _, x, y = case
    pieces = segment(x, "grid", 20)
    draw = torch.Generator().manual_seed(3)
    pull, pairs = (torch.randn(n, generator=draw, dtype=torch.float64) for n in ((20,), (20, 20)))

    class Quadratic(nn.Module):
        def forward(self, seen):
            shown = torch.stack([seen[:, 0][:, pieces[0] == s].mean(1) for s in range(20)], 1)
            signs = 2 * shown - 1
            answer = signs @ pull + torch.einsum("bi,ij,bj->b", signs, pairs, signs) / 4
            return torch.stack([answer, -answer, 0 * answer], 1)

    white, errors = torch.ones_like(x[:1]), {}
    for design in DESIGNS:
        gaps = []
        for seed in range(8):
            chance = torch.Generator().manual_seed(seed)
            fit = lime_fit(
                Quadratic(), white, y[:1], superpixels=pieces[:1], samples=400, fill="black", design=design,
                generator=chance,
            )  # fmt: skip
            gaps.append(fit.weights[0])
        errors[design] = torch.stack(gaps).std(0).mean()
    assert errors["paired"] < 0.5 * errors["independent"]
    assert errors["orthogonal"] < 0.5 * errors["independent"]


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize(("samples", "parts"), [(1, 3), (2, 1), (7, 3), (100, 40), (64, 100)])
def test_every_plan_begins_with_the_whole_image(design, samples, parts):
    plan = coalitions(samples, parts, design, torch.Generator().manual_seed(0))
    assert plan.shape == (samples, parts) and plan.dtype == torch.bool
    assert plan[0].all()
    if design != "independent":
        assert torch.equal(plan[1::2], ~plan[: len(plan) - len(plan) % 2 : 2])


def test_a_block_is_an_orthogonal_array_of_strength_three():
    plan = coalitions(2 + 2 * 16, 13, "orthogonal", torch.Generator().manual_seed(0))[2:].long()
    for i, j, k in torch.combinations(torch.arange(13), 3).tolist():
        assert torch.equal(torch.bincount(4 * plan[:, i] + 2 * plan[:, j] + plan[:, k]), torch.full((8,), 4))


@pytest.mark.slow
def test_each_sample_of_a_plan_is_a_fair_coin():
    draws = [coalitions(4, 5, "orthogonal", torch.Generator().manual_seed(s))[2] for s in range(4000)]
    worth = 2 ** torch.arange(5)
    counts = torch.bincount((torch.stack(draws) * worth).sum(1), minlength=32)
    assert ((counts - 125).abs() < 60).all()  # five standard deviations


@pytest.mark.parametrize("kind", SUPERPIXELS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_superpixels_are_numbered_without_gaps(kind, channels, generator):
    coarse = torch.rand(2, channels, 4, 4, generator=generator)
    x = nn.functional.interpolate(coarse, size=(40, 48), mode="nearest")
    pieces = segment(x, kind, 30)
    assert pieces.shape == (2, 40, 48)
    for one in pieces:
        assert len(one.unique()) == one.max() + 1 > 1


def test_a_grid_is_as_many_as_asked_for():
    for n in (1, 6, 12, 96, 108):
        assert abs(int(segment(rand(1, 1, 9, 12), "grid", n).max()) + 1 - n) <= 0.15 * n


def test_paint_and_mean_colours(generator):
    x = torch.rand(2, 3, 4, 6, generator=generator, dtype=torch.float64)
    pieces = torch.arange(6).repeat(4, 1) // 3
    painted = paint_segments(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), pieces.expand(2, -1, -1))
    assert torch.equal(painted[:, 0, 2], torch.tensor([[1.0, 1, 1, 2, 2, 2], [3, 3, 3, 4, 4, 4]]))
    means = mean_colours(x, pieces.expand(2, -1, -1))
    assert torch.allclose(means[:, :, 1, 4], x[:, :, :, 3:].mean((2, 3)))


def test_own_superpixels_of_any_numbers(case):
    model, x, y = case
    own = torch.arange(20).repeat(16, 1) // 5 * 7 - 3
    options = {"samples": 64}
    maps = lime(model, x, y, superpixels=own, **options)
    assert torch.allclose(maps, lime(model, x, y, superpixels=(own + 3) // 7, **options))
    assert torch.equal(maps, lime(model, x, y, superpixels=own.expand(3, -1, -1), **options))


def test_one_channel_and_seeds(network):
    model = network("relu", channels=1)
    x = nn.functional.interpolate(rand(2, 1, 5, 5, seed=1), size=(28, 28))
    y = torch.tensor([3, 0])
    maps = lime(model, x, y, samples=50)
    assert maps.shape == (2, 1, 28, 28) and maps.dtype == torch.float32
    assert torch.equal(maps, lime(model, x, y, samples=50))
    other = lime(model, x, y, samples=50, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(maps, other)


def test_stability(case):
    model, x, y = case
    options = {"superpixels": "grid", "segments": 20, "fill": "black"}
    sure = lime_stability(sum_of_pixels(16, 20), x, y, samples=200, **options)
    assert torch.equal(sure, torch.ones(3, dtype=torch.float64))  # a sum leaves nothing to chance
    shaky = lime_stability(model, x, y, samples=12, design="independent", **options)
    assert ((shaky >= 0) & (shaky < 1)).all()
    with pytest.raises(InputError, match="top .* 20 superpixels .* got 20"):
        lime_stability(model, x, y, top=20, **options)
    with pytest.raises(InputError, match="repeats .* at least 2"):
        lime_stability(model, x, y, repeats=1, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"superpixels": "grid", "segments": 321}, InputError, r"segments must lie in 1 … 320, the pixels of an image"),
        ({"superpixels": "grid", "segments": 0}, InputError, "got 0"),
        ({"superpixels": "felzenszwalb"}, Unsupported, "'felzenszwalb' are unknown; choices: quickshift, slic, grid"),
        ({"superpixels": torch.zeros(4, 4).long()}, InputError, r"integers \[16, 20\] or \[3, 16, 20\], got"),
        ({"superpixels": torch.zeros(16, 20)}, InputError, "float32"),
        ({"fill": "pink"}, Unsupported, "fill 'pink' is unknown; choices: black, mean, blur, or a number"),
        ({"output": "rank"}, Unsupported, "output 'rank' is unknown"),
        ({"superpixels": "grid", "design": "lazy"}, Unsupported, "design 'lazy' is unknown"),
        ({"samples": 1}, InputError, "samples must be at least 2, of which the first shows everything, got 1"),
        ({"superpixels": "grid", "memory": 1e-6}, InputError, "too small for one image"),
    ],
)
def test_what_cannot_be_is_said(case, options, error, message):
    with pytest.raises(error, match=message):
        lime(*case, **options)


def test_an_image_in_one_piece_and_a_model_without_numbers_are_said(case, network):
    model, x, y = case
    with pytest.raises(InputError, match="quickshift .* of 3"):
        lime(model, x[:, :, :8, :8], y)
    with torch.no_grad():
        model.module[-1].bias[1] = torch.nan
    with pytest.raises(ModelError, match="logits for 1 of 3"):
        lime(model, x, y, superpixels="grid", samples=8)
