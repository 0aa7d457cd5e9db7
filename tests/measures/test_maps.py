import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks import randn
from underfire.errors import InputError
from underfire.measures import maps


def as_map(*rows):
    return torch.tensor(rows)[None, None].float()


def random_maps(seed, size=(6, 5), n=3):
    return randn(n, 1, *size, seed=seed, dtype=torch.float64)


def slow_iou(m, n, k):
    """Python sets, one map at a time; equal pixels in reading order."""

    def top(values):
        return set(sorted(range(len(values)), key=lambda i: (-values[i], i))[:k])

    a, b = top(m.flatten().tolist()), top(n.flatten().tolist())
    return len(a & b) / len(a | b)


def test_normalise_by_hand():
    assert torch.equal(maps.normalise(as_map([-1, 1], [3, 0])), as_map([0, 0.5], [1, 0.25]))
    assert torch.equal(maps.normalise(torch.full((1, 1, 2, 2), 7.0)), torch.zeros(1, 1, 2, 2))


def test_normalise_has_finite_gradients_on_a_constant_map():
    m = torch.ones(1, 1, 3, 3, requires_grad=True)
    maps.normalise(m).sum().backward()
    assert m.grad is not None
    assert torch.isfinite(m.grad).all()


def test_complementary_binary_maps_are_as_far_apart_as_can_be():
    m = as_map([0, 1], [1, 0])
    assert maps.map_l1(m, 1 - m).item() == 1
    assert maps.map_l2(m, 1 - m).item() == 1
    assert maps.map_iou(m, 1 - m, quantile=0.5).item() == 0


def test_distances_by_hand():
    m, n = as_map([0, 1], [2, 4]), as_map([4, 0], [2, 2])  # normalised: 0 ¼ ½ 1 and 1 0 ½ ½
    assert maps.map_l1(m, n).item() == pytest.approx((1 + 0.25 + 0 + 0.5) / 4)
    assert maps.map_l2(m, n).item() == pytest.approx(math.sqrt(1 + 0.0625 + 0 + 0.25) / 2)


def test_maps_of_two_sizes_meet_on_the_larger_grid():
    m = random_maps(0, (4, 4))
    fine = maps.resize(m, (12, 8))
    assert fine.shape == (3, 1, 12, 8)
    assert maps.map_l1(m, fine).max() < 1e-12
    assert torch.equal(maps.map_iou(m, fine), torch.ones(3, dtype=torch.float64))
    tall, broad = random_maps(1, (8, 2)), random_maps(2, (2, 8))
    assert torch.allclose(maps.map_l1(tall, broad), maps.map_l1(maps.resize(tall, (8, 8)), maps.resize(broad, (8, 8))))


def test_resize_is_bilinear_between_pixel_centres():
    assert maps.resize(as_map([0.0, 4.0]), (1, 4)).flatten().tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize("value", [0.0, 0.3, -1e-20])
def test_a_constant_map_is_a_map_of_zeros_and_has_no_top(value):
    constant, other = torch.full((1, 1, 7, 7), value), as_map([0, 1], [1, 1])
    for size in ((7, 7), (224, 224)):
        assert maps.map_l1(constant, maps.resize(constant, size)).item() == 0
        assert math.isnan(maps.map_iou(constant, torch.rand(1, 1, *size, generator=torch.Generator())).item())
    assert maps.map_l1(constant[..., :2, :2], other).item() == 0.75


def test_a_map_with_nan_is_nan_everywhere():
    m = as_map([0, 1], [2, torch.nan])
    for measure in (maps.map_l1, maps.map_l2, maps.map_iou):
        assert math.isnan(measure(m, as_map([0, 1], [2, 3])).item())


@pytest.mark.parametrize(
    ("pixels", "quantile", "count"), [(100, 0.8, 20), (49, 0.8, 10), (4, 0.99, 1), (50176, 0.8, 10035)]
)
def test_the_top_is_a_number_of_pixels(pixels, quantile, count):
    assert maps.top_count(pixels, quantile) == count


def test_equal_pixels_are_taken_in_reading_order():
    assert maps.ranks(as_map([1, 5], [5, 0])).tolist() == [[2, 0, 1, 3]]
    # Top half: {1, 2} and {1, 0} (0, 2 and 3 are equal), so one of three.
    assert maps.map_iou(as_map([1, 5], [5, 0]), as_map([1, 5], [1, 1]), quantile=0.5).item() == pytest.approx(1 / 3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.8, 0.9]), st.sampled_from([1, 3, 100]))
def test_iou_is_the_jaccard_index_of_sets(seed, quantile, levels):
    m, n = ((random_maps(s) * levels).round() for s in (seed, seed + 1))  # few levels: many equal pixels
    expected = [slow_iou(a, b, maps.top_count(30, quantile)) for a, b in zip(m, n, strict=True)]
    assert maps.map_iou(m, n, quantile=quantile).tolist() == pytest.approx(expected)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-5, 5))
def test_measures_are_symmetric_and_blind_to_scale_and_shift(seed, scale, shift):
    m, n = random_maps(seed), random_maps(seed + 1)
    for measure, same in ((maps.map_l1, 0.0), (maps.map_l2, 0.0), (maps.map_iou, 1.0)):
        assert torch.equal(measure(m, n), measure(n, m))
        assert torch.allclose(measure(m * scale + shift, n), measure(m, n), atol=1e-9)
        assert torch.allclose(measure(m, m * scale + shift), torch.full((3,), same, dtype=m.dtype), atol=1e-9)


def test_l1_never_exceeds_l2(generator):
    m, n = torch.rand(50, 1, 8, 8, generator=generator), torch.rand(50, 1, 8, 8, generator=generator)
    assert (maps.map_l1(m, n) <= maps.map_l2(m, n)).all()


def test_a_sweep_is_iou_at_every_quantile():
    m, n, quantiles = random_maps(0), random_maps(1), (0.0, 0.5, 0.9)
    sweep = maps.map_iou_sweep(m, n, quantiles)
    assert sweep.shape == (3, 3)
    assert torch.equal(sweep, torch.stack([maps.map_iou(m, n, quantile=q) for q in quantiles], 1))
    assert torch.equal(sweep[:, 0], torch.ones(3, dtype=torch.float64))  # all pixels of both


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: maps.map_iou(m, m, quantile=1.0), r"\[0, 1\), .* got 1.0"),
        (lambda m: maps.map_iou(m, m, quantile=-0.1), r"got -0.1"),
        (lambda m: maps.map_l1(m[:, 0], m), r"\[B, 1, h, w\], got \(3, 6, 5\)"),
        (lambda m: maps.map_l2(m, m[:2]), "one length, got 3 and 2"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(random_maps(0))
