"""The views of transfer attacks against scipy, closed forms and plain rewritings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from scipy.ndimage import rotate
from torch import Tensor

from tests.networks import rand, seeded
from underfire.errors import InputError
from underfire.gradients import blocks, neighbourhoods, operations, views
from underfire.gradients.admixing import admix
from underfire.gradients.spectra import image_of, spectrum_of, spectrum_simulation


def rows(x: Tensor, y: list[int] | None = None) -> views.Rows:
    """The rows of a whole batch."""
    labels = torch.tensor(y if y is not None else [0] * len(x))
    return views.Rows(torch.arange(len(x)), labels, x, labels)


@pytest.fixture
def x() -> Tensor:
    return rand(2, 3, 9, 14, dtype=torch.float64)


# --- Admix ------------------------------------------------------------------------------------------------------------


def test_admix_mixes_in_images_of_other_classes(x: Tensor) -> None:
    pool, classes = (
        torch.arange(6.0).double()[:, None, None, None].expand(6, 3, 9, 14),
        torch.tensor([0, 0, 1, 1, 2, 2]),
    )
    view = admix(copies=3, samples=40, eta=0.3, others=(pool, classes)).of(rows(x, [0, 1]))
    versions = list(view(x, seeded()))
    assert len(versions) == 120
    seen: list[set[int]] = [set(), set()]
    for number, version in enumerate(versions):
        for image, mixed, found in zip(x, version, seen, strict=True):
            partner = (mixed * 2 ** (number % 3) - image) / 0.3
            assert torch.allclose(partner, partner.mean().round().expand_as(partner))
            found.add(int(partner.mean().round()))
    assert seen == [{2, 3, 4, 5}, {0, 1, 4, 5}]


def test_admix_takes_what_there_is(x: Tensor) -> None:
    """One image has no other class beside it; after a view that enlarges images, the others are enlarged too."""
    (alone,) = admix(1, 1, 0.5).of(rows(x[:1]))(x[:1], seeded())
    assert torch.allclose(alone, 1.5 * x[:1])
    (large,) = admix(1, 1).of(rows(x, [0, 1]))(torch.nn.functional.pad(x, (0, 2, 0, 2)), seeded())
    assert large.shape == (2, 3, 11, 16)
    with pytest.raises(InputError, match="rows"):
        views.compose(views.scale_copies(2), admix())(x, None)


# --- SSM --------------------------------------------------------------------------------------------------------------


def test_the_cosine_transform_is_that_of_scipy_and_is_undone(x: Tensor) -> None:
    assert np.allclose(spectrum_of(x).numpy(), dctn(x.numpy(), axes=(2, 3), norm="ortho"))
    assert torch.allclose(image_of(spectrum_of(x)), x)


def test_spectrum_simulation_weights_each_frequency(x: Tensor) -> None:
    (same,) = spectrum_simulation(1, spread=0, sigma=0)(x, seeded())
    assert torch.allclose(same, x)
    factors = torch.cat([spectrum_of(v) / spectrum_of(x) for v in spectrum_simulation(20, 0.5, 0)(x, seeded())])
    assert 0.5 <= factors.min() < 0.51
    assert 1.49 < factors.max() <= 1.5
    assert abs(factors.mean() - 1) < 0.01
    noise = torch.cat([v - x for v in spectrum_simulation(20, 0, 0.1)(x, seeded())])
    assert abs(noise.std() - 0.1) < 0.005


# --- operations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [0, 15, -45, 90, 180])
def test_rotation_is_that_of_scipy(x: Tensor, degrees: int) -> None:
    theirs = rotate(x.numpy(), degrees, axes=(3, 2), reshape=False, order=1, mode="grid-constant")
    assert np.allclose(operations.rotated(x, degrees).numpy(), theirs, atol=1e-6)


def test_a_low_pass_keeps_low_frequencies(x: Tensor) -> None:
    passed = spectrum_of(operations.low_pass(x, None))
    kept = spectrum_of(x)
    kept[:, :, 9 - 3 :], kept[..., 14 - 5 :] = 0, 0
    assert torch.allclose(passed, kept)
    assert torch.allclose(operations.low_pass(x[..., :1, :1], None), x[..., :1, :1])  # a block of one pixel


def test_operations_keep_the_shape_and_what_they_promise(x: Tensor) -> None:
    ordered = x.flatten(2).sort(2).values
    moves = (operations.shift_rows, operations.shift_columns, operations.flip_rows, operations.flip_columns)
    for operation in (*moves, operations.half_turn):
        assert torch.equal(operation(x, seeded()).flatten(2).sort(2).values, ordered)
    assert torch.equal(operations.half_turn(x, None), x.rot90(2, (2, 3)))
    ratio = operations.darken(x, seeded()) / x
    assert torch.allclose(ratio, ratio[0, 0, 0, 0].expand_as(ratio))
    assert ratio.max() < 1
    assert (operations.add_noise(x, seeded()) - x).abs().max() <= 16 / 255
    many = torch.ones(100, 10, 2, 2)
    dropped = operations.drop_channels(many, seeded())
    assert {round(float(v), 4) for v in dropped.unique()} == {0.0, round(1 / 0.9, 4)}
    assert abs(dropped.mean() - 1) < 0.05
    flat = torch.full_like(x, 0.4)
    assert torch.allclose(operations.coarsen(flat, None), flat)
    for operation in (*blocks.STRUCTURE_INVARIANT, *neighbourhoods.OPERATORS):
        for shape in ((2, 3, 9, 14), (1, 1, 1, 1), (1, 3, 2, 5)):
            assert operation(rand(*shape), seeded()).shape == shape


# --- blocks -----------------------------------------------------------------------------------------------------------


def test_every_block_of_sia_gets_its_own_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each operation is replaced by a constant, so that the blocks can be seen."""
    constants = [lambda v, g, n=n: torch.full_like(v, float(n)) for n in range(10)]
    monkeypatch.setattr(blocks, "STRUCTURE_INVARIANT", constants)
    seen = set()
    for version in blocks.structure_invariant(30, 3)(rand(2, 3, 8, 11), seeded()):
        image = version[0, 0]
        assert torch.equal(version, image.expand_as(version))
        changed = [int((image.diff(dim=d) != 0).any(1 - d).sum()) for d in (0, 1)]
        assert all(n <= 2 for n in changed)
        seen |= {int(v) for v in image.unique()}
    assert seen == set(range(10))


def test_bsr_moves_blocks_and_rotates_them(x: Tensor) -> None:
    for version in blocks.block_shuffle(10, 2, rotation=0)(x, seeded()):
        assert torch.allclose(version.flatten(2).sort(2).values, x.flatten(2).sort(2).values)
    (turned,) = blocks.block_shuffle(1, 1, rotation=90)(x, seeded(1))
    draws = seeded(1)
    for _ in range(1):
        views.whole(0, 2, draws)
    for _ in range(2):
        torch.rand(1, generator=draws, dtype=torch.float64), torch.randperm(1, generator=draws)
    assert torch.allclose(turned, operations.rotated(x, views.uniform(-90, 90, draws)))
    for side, count in ((2, 2), (3, 3), (7, 3), (100, 4)):
        for seed in range(20):
            lengths = blocks._lengths(side, count, seeded(seed))
            assert sum(lengths) == side
            assert min(lengths) >= 1
            assert max(lengths) <= 2 * min(lengths) + 3


# --- neighbours and operators -----------------------------------------------------------------------------------------


def test_neighbours_lie_within_the_radius_of_their_sample(x: Tensor) -> None:
    view = neighbourhoods.neighbours(200, torch.tensor([0.1, 0.3]), (0.5, 1.0)).of(rows(x))
    far = torch.stack([(v - x).abs().flatten(1).amax(1) for v in view(x, seeded())])
    assert (far <= torch.tensor([0.1, 0.3]) + 1e-7).all()
    half = (far <= torch.tensor([0.05, 0.15]) + 1e-7).all(1)
    assert 70 < int(half.sum()) < 130
    assert (far[~half] > torch.tensor([0.05, 0.15])).all()


def test_a_chain_of_operators_is_its_operators_in_turn(x: Tensor) -> None:
    draws = seeded(4)
    for version in neighbourhoods.random_operators(5, (2, 3))(x, seeded(4)):
        expected = x
        for _ in range((2, 3)[int(torch.randint(0, 2, (), generator=draws))]):
            chosen = int(torch.randint(0, len(neighbourhoods.OPERATORS), (), generator=draws))
            expected = neighbourhoods.OPERATORS[chosen](expected, draws)
        assert torch.equal(version, expected)


def test_input_diversity_can_keep_the_size(x: Tensor) -> None:
    (version,) = views.input_diversity(1.0, 1.5, keep_size=True)(x, seeded())
    (padded,) = views.input_diversity(1.0, 1.5)(x, seeded())
    assert version.shape == x.shape != padded.shape
    smaller = torch.nn.functional.interpolate(padded, x.shape[2:], mode="bilinear")
    assert torch.equal(version, smaller)


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (lambda: admix(copies=0), "copies"),
        (lambda: admix(eta=2), "2"),
        (lambda: admix(others=(rand(2, 3, 4, 4), torch.tensor([1]))), "2 and 1"),
        (lambda: spectrum_simulation(spread=1.5), "1.5"),
        (lambda: spectrum_simulation(sigma=-1), "sigma"),
        (lambda: blocks.block_shuffle(rotation=200), "200"),
        (lambda: blocks.structure_invariant(samples=0), "samples"),
        (lambda: list(blocks.structure_invariant(1, 3)(rand(1, 1, 2, 9), None)), "2 x 9"),
        (lambda: list(blocks.block_shuffle(1, 3)(rand(1, 1, 9, 2), None)), "9 x 2"),
        (lambda: neighbourhoods.neighbours(shares=()), "shares"),
        (lambda: neighbourhoods.random_operators(lengths=(0,)), "lengths"),
        (lambda: neighbourhoods.gradient_penalty(samples=0), "samples"),
    ],
)
def test_bad_arguments_are_named(make, value: str) -> None:
    with pytest.raises(InputError, match=value):
        make()
