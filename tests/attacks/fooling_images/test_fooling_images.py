"""Genomes against slow loops, evolution against what it must keep, and the paper's finding on real weights."""

import math

import pytest
import torch

import underfire as uf
from tests.networks import linear as linear_network
from tests.networks import rand, randn
from underfire import models
from underfire.attacks.fooling_images import map_elites
from underfire.attacks.fooling_images.attack import _every_log_odds
from underfire.attacks.fooling_images.genomes import Cppn, Direct
from underfire.errors import InputError, Unsupported

DOUBLE = torch.empty(0, dtype=torch.float64)


def test_polynomial_mutation_changes_a_tenth_then_a_twentieth_by_its_density(generator):
    painter = Direct((1, 200, 200), DOUBLE)
    (before,) = painter.random(3, generator)
    before = 0.4 + 0.2 * before  # away from the borders, where changes are cut
    for generation, rate in [(0, 0.1), (999, 0.1), (1000, 0.05), (2500, 0.025)]:
        change = painter.mutate((before,), generation, generator)[0] - before
        changed = change[change != 0]
        assert changed.numel() / change.numel() == pytest.approx(rate, rel=0.05)
        # The density is (n + 1) / 2 * (1 - |d|)^n with n = 15.
        assert changed.mean().abs() < 3e-3
        assert changed.abs().mean().item() == pytest.approx(1 / 17, rel=0.04)
        assert (changed.abs() < 0.1).double().mean().item() == pytest.approx(1 - 0.9**16, rel=0.02)


def slow_paint(painter, genome):
    """One network, pixel by pixel, node by node."""
    weights, connected, functions, used = genome
    channels, height, width = painter.shape
    kinds = [
        lambda v: math.sin(math.pi * v),
        lambda v: 2 * math.exp(-v * v) - 1,
        math.tanh,
        lambda v: max(-1.0, min(1.0, v)),
    ]
    image = torch.zeros(painter.shape, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            y, x = 2 * i / (height - 1) - 1, 2 * j / (width - 1) - 1
            known = {0: x, 1: y, 2: math.hypot(x, y), 3: 1.0}

            def node(n, known=known):
                total = sum(weights[n, s].item() * v for s, v in known.items() if connected[n, s])
                return kinds[int(functions[n])](total)

            for h in range(int(used)):
                known[4 + h] = node(h)
            for c in range(channels):
                image[c, i, j] = (node(painter.hidden + c) + 1) / 2
    return image


def test_networks_paint_what_they_say(generator):
    painter = Cppn((2, 5, 4), DOUBLE, hidden=4)
    genomes = painter.random(6, generator)
    for generation in range(1, 25):
        genomes = painter.mutate(genomes, generation, generator)
    assert genomes[3].unique().numel() > 1
    images = painter.render(genomes)
    assert ((images >= 0) & (images <= 1)).all()
    for i in range(6):
        assert torch.allclose(images[i], slow_paint(painter, [part[i] for part in genomes]), atol=1e-12)


def test_networks_stay_feed_forward_and_grow(generator):
    painter = Cppn((3, 4, 4), DOUBLE, hidden=5)
    genomes = painter.random(50, generator)
    for generation in range(1, 60):
        grown = painter.mutate(genomes, generation, generator)
        assert ((grown[3] - genomes[3] >= 0) & (grown[3] - genomes[3] <= 1)).all()
        genomes = grown
    _, connected, _, used = genomes
    assert (used == 5).any()
    assert not (connected & ~painter.order).any()
    slot = torch.arange(5)
    unused = slot >= used[:, None]
    assert not connected[:, :5].any(2)[unused].any()  # an unused node hears nothing
    assert not connected[:, :, 4:].any(1)[unused].any()  # and is heard by none


def test_a_new_node_with_a_line_in_its_middle_changes_nothing(generator):
    painter = Cppn((1, 6, 6), DOUBLE, hidden=3)
    weights, connected, functions, used = painter.random(20, generator)
    functions[:] = 3
    weights[:, 0, :4] = 0
    before = painter.render((weights, connected, functions, used))
    painter._split(weights, connected, used, torch.ones(20, dtype=torch.bool), generator)
    assert (used == 1).all()
    inputs_of_line = weights[:, 0][connected[:, 0]]
    assert (inputs_of_line == 1).all()
    within = torch.tensor([painter.places[s].abs().amax() <= 1 for s in range(4)])  # else the line cuts
    rows = (connected[:, 0, :4] & within).any(1)
    assert torch.allclose(painter.render((weights, connected, functions, used))[rows], before[rows])


def test_log_odds_of_every_class_survive_certainty():
    logits = torch.tensor([[0.3, -1.0, 0.9], [400.0, -300.0, 0.0], [5e4, 1e4, 4e4]], dtype=torch.float64)
    odds = _every_log_odds(logits)
    p = logits[0].softmax(0)
    assert torch.allclose(odds[0], (p / (1 - p)).log())
    assert torch.allclose(odds[1:], torch.tensor([[400.0, -700, -400], [1e4, -4e4, -1e4]], dtype=torch.float64))


@pytest.fixture
def linear():
    return linear_network(3 * randn(48, 6, seed=2).T)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["direct", "cppn"])
def test_champions_only_get_better_and_confidences_are_theirs(linear, encoding):
    options = {"encoding": encoding, "population": 30, "chunk": 7}
    last = torch.zeros(4)
    for steps in (1, 10, 60):
        images, confidence = map_elites(
            linear, (3, 4, 4), [5, 0, 1, 3], steps=steps, generator=torch.Generator().manual_seed(0), **options
        )
        shown = linear(images).softmax(1)[torch.arange(4), torch.tensor([5, 0, 1, 3])]
        assert torch.allclose(shown, confidence, atol=1e-5)
        assert (confidence >= last - 1e-6).all()
        last = confidence
    assert last.min() > 0.9


def test_with_the_whole_box_nothing_of_the_image_is_left(linear):
    x, y = rand(5, 3, 4, 4, seed=1), torch.zeros(5, dtype=torch.int64)
    goal = torch.tensor([2, 4, 2, 1, 4])
    first, second = (
        uf.attacks.fooling_images(
            linear, images, y, goal=goal, steps=40, population=50, generator=torch.Generator().manual_seed(0)
        )
        for images in (x, 1 - x)
    )
    assert torch.equal(first, second)
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[1])
    assert (linear(first).argmax(1) == goal).all()


def test_gradient_ascent_settles_at_the_optimum_of_log_odds_and_penalty():
    w = torch.linspace(-1, 1, 48, dtype=torch.float64)
    model = linear_network(torch.stack([w, -w]))  # the log-odds of class 0 are 2 w x
    x = torch.full((2, 3, 4, 4), 0.5, dtype=torch.float64)
    y = torch.ones(2, dtype=torch.int64)
    x_adv = uf.attacks.fooling_images(
        model, x, y, goal=1 - y, encoding="gradient", grey_weight=3.0, generator=torch.Generator().manual_seed(0)
    )
    wanted = (0.5 + w / 3).clamp(0, 1)
    assert (x_adv.flatten(1) - wanted).square().mean(1).sqrt().max() < 0.02


@pytest.mark.slow
def test_evolution_fools_a_network_of_digits(data_root):
    """The paper reports a median confidence of 99.99 % for the ten digits, by networks after a few generations."""
    path = data_root / "weights" / "interpretability_aware" / "mnist_small_normal.safetensors"
    model = models.load(f"{path}?arch=mnist_small_normal")
    generator = torch.Generator().manual_seed(0)
    images, confidence = map_elites(model, (1, 28, 28), range(10), encoding="cppn", steps=15, generator=generator)
    assert confidence.median() > 0.9999
    assert images.shape == (10, 1, 28, 28)


def test_bad_settings_are_one_clear_error(linear):
    x, y = rand(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(Unsupported, match="direct, cppn, gradient"):
        uf.attacks.fooling_images(linear, x, y, encoding="neat")
    with pytest.raises(InputError, match="population"):
        uf.attacks.fooling_images(linear, x, y, population=0)
    with pytest.raises(InputError, match="classes must not be empty"):
        map_elites(linear, (3, 4, 4), [])
    with pytest.raises(Unsupported, match="choices: direct, cppn"):
        map_elites(linear, (3, 4, 4), [0], encoding="gradient")
