"""MASK against a slow one-image reference written from the papers, closed forms and finite differences."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

import underfire as uf
from tests.networks import rand, randn
from underfire.ascent.moves import plain
from underfire.errors import InputError, ModelError, Unsupported
from underfire.interpreters import mask, mask_game, mask_step
from underfire.interpreters.mask.game import GAMES
from underfire.interpreters.mask.mask import detailed
from underfire.interpreters.mask.variants import VARIANTS

pytestmark = pytest.mark.slow  # one of the twenty heaviest files

# What the table of the implementations says, in pixels of 224: weight of the mean area, weight of the sum of cubes,
# sigma and radius of the null image's blur (or side of its median), of the mask's blur, jitter, noise, start.
TOLD = {
    "fong": (1e-4 * 784, 1e-2, (10, 30), (5, 15), 4, 0, None),
    "adv2_v1": (1e-2, 1e-4, (10, 5), None, 0, 0, 0.5),
    "adv2_v2": (1e-4 * 784, 1e-2, (0.3 * 9 + 0.8, 10), (0.3 * 4 + 0.8, 5), 4, 0, 0.5),
    "gildenblat": (1e-2, 0.2 / 756, 11, None, 0, 0.045, 1.0),
}


@pytest.fixture
def case(network):
    coarse = rand(3, 3, 8, 10, dtype=torch.float64)
    x = nn.functional.interpolate(coarse, size=(56, 70), mode="bilinear")
    return network("relu", torch.float64), x, torch.tensor([0, 1, 2])


@pytest.fixture(scope="module")
def digits():
    model = uf.models.load("zoo:cluttered_digits")
    batch = uf.data.load("cluttered-digits:test", n=2, seed=0)[:2]
    return model, batch.x, model.predict(batch.x).argmax(1)


class Reference:
    """One image, one mask, as the papers have it: scipy's filters, torch's Adam, a loop over cells."""

    def __init__(self, model, image, label, variant, game):
        self.model, self.image, self.label, self.keep = model, image, label, game == "preservation"
        self.area, self.smooth, blur, self.blur, jitter, self.noise, self.first = TOLD[variant]
        self.scale = min(image.shape[1:]) / 224
        self.jitter = round(jitter * self.scale)
        pixels = image.numpy()
        if isinstance(blur, int):
            side = 2 * max(1, round((blur * self.scale - 1) / 2)) + 1
            null = np.stack([ndimage.median_filter(c, side, mode="nearest") for c in pixels])
        else:
            null = np.stack([ndimage.gaussian_filter(c, blur[0] * self.scale, **self.cut(blur)) for c in pixels])
        self.null = torch.from_numpy(null)

    def cut(self, blur):
        return {"radius": max(1, round(blur[1] * self.scale)), "mode": "mirror"}

    def enlarge(self, m):
        up = nn.functional.interpolate(m[None, None], size=self.image.shape[1:], mode="bilinear")[0, 0]
        if self.blur is None:
            return up
        reach = self.cut(self.blur)["radius"]
        line = torch.from_numpy(ndimage.gaussian_filter1d(np.eye(2 * reach + 1)[reach], self.blur[0] * self.scale,
                                                          radius=reach))  # fmt: skip
        padded = nn.functional.pad(up[None, None], (reach,) * 4, mode="reflect")
        return nn.functional.conv2d(padded, torch.outer(line, line)[None, None])[0, 0]

    def probability(self, m, drawn=(0, 0, None), moves=False):
        pictures = [self.image, self.null]
        if moves and self.jitter:
            before, after = self.jitter // 2, self.jitter - self.jitter // 2
            top, left = drawn[:2]
            wide = [np.pad(p.numpy(), ((0, 0), (before, after), (before, after)), mode="edge") for p in pictures]
            h, w = self.image.shape[1:]
            pictures = [torch.from_numpy(p[:, top : top + h, left : left + w]) for p in wide]
        up = self.enlarge(m)
        seen = pictures[0] * up + pictures[1] * (1 - up)
        if moves and drawn[2] is not None:
            seen = seen + drawn[2]
        return self.model(seen[None]).softmax(1)[0, self.label]

    def objective(self, m, drawn=(0, 0, None), moves=False):
        tv = 0
        for i in range(m.shape[0]):
            for j in range(m.shape[1]):
                if i + 1 < m.shape[0]:
                    tv = tv + (m[i + 1, j] - m[i, j]).abs() ** 3
                if j + 1 < m.shape[1]:
                    tv = tv + (m[i, j + 1] - m[i, j]).abs() ** 3
        p = self.probability(m, drawn, moves)
        if self.keep:
            return self.area * m.mean() + self.smooth * tv + 1 - p
        return self.area * (1 - m).mean() + self.smooth * tv + p

    def start(self, shape):
        if self.first is not None:
            return torch.full(shape, self.first, dtype=torch.float64)
        keep = torch.ones(shape, dtype=torch.float64)
        low, high = self.probability(0 * keep), self.probability(keep)
        i, j = np.indices(shape)
        far = torch.from_numpy(np.hypot(i - (shape[0] - 1) / 2, j - (shape[1] - 1) / 2))
        for k in range(1, 17):
            circle = (k / 16 * (far.max() + 1) - far).clamp(0, 1)
            m = circle if self.keep else 1 - circle
            reached = self.probability(m)
            if abs(reached - (high if self.keep else low)) <= 0.01 * abs(high - low):
                break
        return m

    def run(self, shape, draws):
        m = self.start(shape).clone().requires_grad_()
        adam = torch.optim.Adam([m], lr=0.1)
        for drawn in draws:
            adam.zero_grad()
            self.objective(m, drawn, moves=True).backward(inputs=[m])
            adam.step()
            with torch.no_grad():
                m.clamp_(0, 1)
        return m.detach()


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_the_slow_reference(case, variant, game):
    """The same draws, the same masks, and so an objective no worse."""
    model, x, y = case
    options = {"variant": variant, "game": game, "fill": "variant", "cells": 7}
    shown = mask(model, x, y, steps=12, **options)
    played = mask_game(model, x, y, **options)
    chance = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(0))))
    draws = [played.draw(chance) for _ in range(12)]
    assert played.jitter == 0 or len({drawn[:2] for drawn in draws}) > 1
    kept = shown if game == "preservation" else 1 - shown
    objective = played.objective(kept)
    for i in range(2):
        slow = Reference(model, x[i], y[i], variant, game)
        m = slow.run(tuple(shown.shape[2:]), draws)
        assert torch.allclose(kept[i, 0], m, atol=1e-7)
        assert objective[i] <= slow.objective(m) + 1e-7


def watching(top, left, side):
    """A model whose class 0 is the brightness of one square."""

    class Watching(nn.Module):
        def forward(self, x):
            seen = x[:, 0, top : top + side, left : left + side].mean((1, 2))
            return torch.stack([40 * (seen - 0.85), torch.zeros_like(seen)], 1)

    return Watching()


@pytest.mark.parametrize("game", GAMES)
def test_what_counts_is_found(game):
    """Only a white square on black counts, and the rest of the image is not important."""
    x = torch.zeros(1, 1, 56, 56, dtype=torch.float64)
    x[:, :, 14:28, 28:42] = 1
    shown = mask(watching(14, 28, 14), x, torch.tensor([0]), game=game, steps=150)
    assert shown.shape == (1, 1, 28, 28)
    high = uf.measures.maps.resize(shown, (56, 56))[0, 0]
    inside = high[14:28, 28:42].mean()
    assert inside > 0.95
    assert inside > 2.5 * (high.sum() - high[14:28, 28:42].sum()) / (56**2 - 14**2)


def test_more_steps_make_the_objective_smaller(case):
    """Of every image: none pays for another."""
    model, x, y = case
    played = mask_game(model, x, y, variant="adv2_v1")
    before, after = (1 - mask(model, x, y, variant="adv2_v1", steps=steps) for steps in (0, 60))
    assert (played.objective(after) < played.objective(before)).all()


def test_masks_and_blurs_follow_the_image(network):
    sizes = {(224, 224): (28, 28), (224, 320): (28, 40), (300, 300): (28, 28), (56, 28): (56, 28), (9, 12): (9, 12)}
    for (height, width), cells in sizes.items():
        played = mask_game(network(), rand(1, 3, height, width), torch.zeros(1).long(), fill="black")
        assert (played.rows.shape[1], played.columns.shape[1]) == cells
        assert torch.allclose(played.rows.sum(1), torch.ones(height))
        assert played.jitter == round(4 * min(height, width) / 224)
    coarser = mask_game(network(), rand(1, 3, 64, 64), torch.zeros(1).long(), cells=16)
    assert coarser.start().shape == (1, 1, 16, 16)


def test_the_virtual_step_of_adv2_is_a_gradient_step_with_a_graph(network):
    """Its derivative in the image, against finite differences on a smooth network."""
    model = network("smooth", torch.float64)
    x = rand(2, 3, 16, 16, dtype=torch.float64)
    y = torch.tensor([1, 2])
    draw = torch.Generator().manual_seed(1)
    m = 0.2 + 0.6 * torch.rand(2, 1, 7, 7, generator=draw, dtype=torch.float64)
    weights = torch.randn(2, 1, 7, 7, generator=draw, dtype=torch.float64)
    direction = torch.randn(x.shape, generator=draw, dtype=torch.float64)

    def stepped(images):
        return mask_step(mask_game(model, images, y, cells=7), m, step_size=0.3, move=plain())[0]

    point = m.clone().requires_grad_()
    (g,) = torch.autograd.grad(mask_game(model, x, y, cells=7).objective(point).sum(), point)
    assert torch.allclose(stepped(x), (m - 0.3 * g).clamp(0, 1))
    assert not stepped(x).requires_grad
    x.requires_grad_()
    (slope,) = torch.autograd.grad((weights * stepped(x)).sum(), x)
    ahead, behind = (stepped((x + s * direction).detach()) for s in (1e-5, -1e-5))
    measured = (weights * (ahead - behind)).sum() / 2e-5
    assert torch.isclose((slope * direction).sum(), measured, rtol=1e-5)


def test_steps_can_be_unrolled_through_the_masks(network):
    model = network("smooth", torch.float64)
    x = rand(1, 3, 16, 16, dtype=torch.float64)
    direction = randn(x.shape, seed=1, dtype=torch.float64)
    y = torch.tensor([1])

    def unrolled(images):
        game = mask_game(model, images, y, variant="adv2_v1")
        m, state = game.start(), None
        for _ in range(3):
            m, state = mask_step(game, m, state)
        return m

    x.requires_grad_()
    (slope,) = torch.autograd.grad(unrolled(x).square().sum(), x)
    ahead, behind = (unrolled((x + s * direction).detach()).square().sum() for s in (1e-6, -1e-6))
    assert torch.isclose((slope * direction).sum(), (ahead - behind) / 2e-6, rtol=1e-3)


def test_another_fill_takes_the_place_of_the_blur(case):
    model, x, y = case
    grey = mask_game(model, x, y, variant="adv2_v1", fill=0.25, cells=7)
    half = torch.full((3, 1, 7, 9), 0.5, dtype=torch.float64)
    assert torch.allclose(grey.perturbed(half), 0.5 * x + 0.125)
    assert not torch.equal(*(mask(model, x, y, steps=3, fill=fill) for fill in (None, "black")))


class Bright(nn.Module):
    """A model whose class 0 is a bright image, with one logit more for each step of the brightest pixel above .3."""

    def forward(self, x):
        return torch.stack([50 * (x.amax((1, 2, 3)) - 0.3), torch.zeros_like(x[:, 0, 0, 0])], 1)


def test_an_image_that_keeps_its_class_under_the_blur_gets_a_wider_one_and_black_at_last():
    """A dot loses the class under the variant's blur, a stroke under a wider one, a white image under black only."""
    x = torch.zeros(3, 1, 56, 56, dtype=torch.float64)
    x[0, :, 28, 28] = 1
    x[1, :, 20:28, 20:28] = 1
    x[2] = 1
    y = torch.zeros(3, dtype=torch.int64)
    blurred = mask_game(Bright(), x, y, fill="variant").null
    chosen = mask_game(Bright(), x, y).null
    assert torch.equal(chosen[0], blurred[0])
    assert blurred[1].amax() > 0.3 > chosen[1].amax() > 0.05
    assert torch.equal(chosen[2], torch.zeros_like(chosen[2]))
    singles = [mask_game(Bright(), x[i : i + 1], y[i : i + 1]).null for i in range(3)]
    assert torch.equal(chosen, torch.cat(singles))


@pytest.mark.parametrize("game", GAMES)
def test_figures_say_what_is_deleted_what_is_left_and_whether_the_game_is_won(game):
    x = torch.zeros(2, 1, 56, 56, dtype=torch.float64)
    x[:, :, 14:28, 28:42] = 1
    y = torch.zeros(2, dtype=torch.int64)
    model, options = watching(14, 28, 14), {"steps": 60, "fill": "black", "game": game}
    m, figures = detailed(model, x, y, chunk=1, **options)
    assert torch.equal(m, mask(model, x, y, chunk=1, **options))
    played = mask_game(model, x, y, fill="black")
    for name, kept in (("p", torch.ones_like(m)), ("p_deleted", 1 - m), ("p_kept", m)):
        assert torch.allclose(figures[name], played.probability(kept))
    assert figures["won"].all()
    kept = figures["p_kept"] if game == "preservation" else figures["p"] - figures["p_deleted"]
    assert bool((kept >= 0.5 * figures["p"]).all())
    # a fill that is almost as bright wins no deletion
    _, lost = detailed(Bright(), torch.full_like(x, 0.34), y, steps=2, variant="adv2_v2", fill=0.32)
    assert not lost["won"].any()


def test_the_defaults_win_the_game_on_digits_where_the_published_ones_leave_the_map_empty(digits):
    model, x, y = digits
    options = {"variant": "adv2_v2", "steps": 40}
    _, published = detailed(model, x, y, fill="variant", cells=7, **options)
    m, chosen = detailed(model, x, y, **options)
    assert not published["won"].any()
    assert chosen["won"].all()
    assert bool((m.amax((1, 2, 3)) > 0.5).all())


def test_chance_is_the_generators(case):
    model, x, y = case
    options = {"variant": "gildenblat", "steps": 3}
    one, same, other = (
        mask(model, x, y, generator=torch.Generator().manual_seed(seed), **options) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"variant": "adv2"}, Unsupported, "variant 'adv2' is unknown; choices: fong, adv2_v1, adv2_v2, gildenblat"),
        ({"game": "both"}, Unsupported, "game 'both' is unknown; choices: deletion, preservation"),
        ({"fill": "pink"}, Unsupported, "fill 'pink' is unknown"),
        ({"steps": -1}, InputError, "steps must be >= 0, got -1"),
        ({"step_size": 0.0}, InputError, "step_size must be a positive length, such as 0.1, got 0"),
        ({"step_size": float("nan")}, InputError, "got nan"),
        ({"cells": 0}, InputError, "cells must lie in 1 … 56, the rows of an image, got 0"),
        ({"memory": 1e-6}, InputError, "too small for one image"),
    ],
)
def test_what_cannot_be_is_said(case, options, error, message):
    with pytest.raises(error, match=message):
        mask(*case, **options)


def test_a_model_without_numbers_is_said(case):
    model, x, y = case
    with torch.no_grad():
        model.module[-1].bias.fill_(torch.nan)
    with pytest.raises(ModelError, match="NaN for 3 of 3"):
        mask(model, x, y, steps=2)
