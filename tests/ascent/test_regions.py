"""The threat that changes one region: its pixels, its share of the image, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from tests.networks import rand, seeded
from underfire.ascent.regions import Patch
from underfire.domains import Domain
from underfire.errors import InputError, Unsupported

X = rand(4, 3, 8, 10)


def test_the_corner_covers_no_more_than_eps() -> None:
    eps = torch.tensor([0.0, 0.1, 0.3, 1.0])
    region = Patch(eps).allowed(X)
    assert [int(part.sum()) for part in region] == [0, 8, 24, 80]  # 2 x 4, 4 x 6, 8 x 10
    assert region[2, 0, :4, :6].all()
    assert (region.flatten(1).mean(1) <= eps + 1e-6).all()


def test_pixels_take_any_value_inside_and_stay_outside() -> None:
    mask = torch.zeros(8, 10)
    mask[2:5, 3:6] = 1
    threat = Patch(0.2, mask)
    threat.check(X)
    far = threat.project(X, X + 5 * (rand(4, 3, 8, 10, seed=1) - 0.5))
    assert ((far != X).any(1) == mask.bool()).all()
    assert far.amin() == 0 and far.amax() == 1
    drawn = threat.random_start(X, seeded(2))
    assert torch.equal(drawn * (1 - mask), X * (1 - mask))
    assert torch.allclose(threat.size(X, drawn), torch.tensor(9 / 80))
    g = rand(4, 3, 8, 10, seed=3) - 0.5
    assert torch.equal(threat.steepest(g, X, X), g.sign() * mask)
    one = Patch(torch.tensor([0.1, 0.2, 0.3, 0.4]), mask.expand(4, 1, 8, 10)).take(torch.tensor([2]))
    assert one.eps == pytest.approx(0.3) and one.mask is not None and len(one.mask) == 1


@pytest.mark.parametrize(
    ("eps", "mask", "words"),
    [(1.5, None, "share"), (0.1, torch.ones(8, 10), "covers 1 "), (0.5, torch.full((8, 10), 0.5), "zeros and ones")],
)
def test_bad_regions(eps: float, mask: torch.Tensor | None, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Patch(eps, mask).check(X)


def test_only_images_have_patches() -> None:
    with pytest.raises(Unsupported, match="patch"):
        Patch(0.1).in_domain(Domain("table", 2, low=(0.0, 0.0), high=(3.0, 4.0)))
