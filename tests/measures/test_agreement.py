"""Agreement of maps against scipy and scikit-image, and its invariances."""

import pytest
import torch

from underfire.errors import InputError
from underfire.measures import agreement as agree
from underfire.measures.ssim import map_ssim


@pytest.fixture
def pair(generator):
    """Two batches of maps with many ties."""
    m, n = (torch.randint(0, 6, (4, 1, 7, 9), generator=generator).double() for _ in range(2))
    return m, n + 0.5 * m


def test_average_ranks_as_scipy(pair):
    stats = pytest.importorskip("scipy.stats")
    found = agree.average_ranks(pair[0])
    wanted = torch.from_numpy(stats.rankdata(pair[0].flatten(1).numpy(), axis=1) - 1)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_spearman_and_kendall_as_scipy(pair, dtype):
    stats = pytest.importorskip("scipy.stats")
    m, n = (t.to(dtype) for t in pair)
    for measure, reference in ((agree.map_rank_correlation, stats.spearmanr), (agree.map_kendall, stats.kendalltau)):
        wanted = [reference(a.flatten(), b.flatten()).statistic for a, b in zip(m.numpy(), n.numpy(), strict=True)]
        assert measure(m, n).tolist() == pytest.approx(wanted, abs=1e-6)


def test_large_maps_keep_their_digits(generator):
    m = torch.rand(2, 1, 224, 224, generator=generator)
    assert torch.allclose(agree.map_rank_correlation(m, m.exp()), torch.ones(2), atol=1e-6)
    assert torch.allclose(agree.map_rank_correlation(m, -m), -torch.ones(2), atol=1e-6)
    assert agree.map_rank_correlation(m, m.flip(0)).abs().max() < 0.02


def test_only_the_order_counts(pair):
    m, n = pair
    bent = 5 * m.exp() - 3
    for measure in (agree.map_rank_correlation, agree.map_kendall, agree.map_top_overlap):
        assert torch.allclose(measure(bent, n), measure(m, n))
        assert torch.allclose(measure(n, m), measure(m, n))


def test_top_overlap_counts(generator):
    m = torch.arange(100.0).view(1, 1, 10, 10)
    n = m.clone()
    n[0, 0, -1, -4:] = -1  # four of the top ten are gone, and the next four took their place
    assert agree.map_top_overlap(m, n).item() == pytest.approx(0.6)
    assert agree.map_top_overlap(m, n, quantile=0.5).item() == pytest.approx(0.92)
    noise = torch.rand(2, 400, 1, 10, 10, generator=generator)
    assert agree.map_top_overlap(*noise).mean().item() == pytest.approx(0.1, abs=0.02)


def test_all_pairs_are_the_pairs(generator):
    maps = {
        "fine": torch.rand(3, 1, 8, 8, generator=generator),
        "coarse": torch.rand(3, 1, 4, 4, generator=generator),
        "flat": torch.cat([torch.rand(1, 1, 2, 2, generator=generator), torch.full((2, 1, 2, 2), 0.3)]),
    }
    for quantile, measure in (
        (None, agree.map_rank_correlation),
        (0.75, lambda a, b: agree.map_top_overlap(a, b, quantile=0.75)),
    ):
        found = agree.agreement(maps, quantile=quantile)
        assert found.names == ("fine", "coarse", "flat")
        for i, first in enumerate(maps.values()):
            assert torch.allclose(found.values[i, i][:1], torch.ones(1))
            for j, second in enumerate(maps.values()):
                if 8 in (first.shape[2], second.shape[2]):  # the pair alone is compared on the same grid
                    torch.testing.assert_close(found.values[i, j], measure(first, second), equal_nan=True)
        assert found.values[2].isnan().tolist() == [[False, True, True]] * 3
        assert torch.allclose(found.mean, found.mean.T)
        assert torch.allclose(found.mean.diagonal(), torch.ones(3))


def test_ssim_as_scikit_image(generator):
    metrics = pytest.importorskip("skimage.metrics")
    m, n = torch.rand(2, 3, 1, 12, 9, generator=generator, dtype=torch.float64)
    a, b = (((t - t.amin((2, 3), True)) / (t.amax((2, 3), True) - t.amin((2, 3), True))).numpy() for t in (m, n))
    wanted = [metrics.structural_similarity(a[i, 0], b[i, 0], data_range=1.0) for i in range(3)]
    assert map_ssim(m, n).tolist() == pytest.approx(wanted)
    assert torch.allclose(map_ssim(m, 3 * m + 1), torch.ones(3, dtype=torch.float64))
    small = map_ssim(m[..., :3, :3], n[..., :3, :3])
    assert (small.abs() <= 1).all()


def test_a_constant_map_agrees_with_nothing(pair):
    m, n = pair
    m = m.clone()
    m[1], m[2, 0, 0, 0] = 4, torch.inf
    for measure in (agree.map_rank_correlation, agree.map_kendall, agree.map_top_overlap, map_ssim):
        assert measure(m, n).isnan().tolist() == [False, True, True, False]


def test_no_maps_have_no_agreement(pair):
    for measure in (agree.map_rank_correlation, agree.map_kendall, agree.map_top_overlap, map_ssim):
        assert measure(pair[0][:0], pair[1][:0]).shape == (0,)


def test_bad_input(pair):
    m, n = pair
    with pytest.raises(InputError, match=r"\{'a': 4, 'b': 3\}"):
        agree.agreement({"a": m, "b": n[:3]})
    with pytest.raises(InputError, match="got lengths {}"):
        agree.agreement({})
    with pytest.raises(InputError, match="side .* got 1"):
        agree.map_kendall(m, n, side=1)
    with pytest.raises(InputError, match=r"quantile .*\[0, 1\)"):
        agree.map_top_overlap(m, n, quantile=1)
