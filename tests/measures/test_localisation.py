import math

import pytest
import torch

from tests.networks import rand
from underfire.errors import InputError
from underfire.measures import localisation, maps

MASK = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
MASK[..., :2, :2] = True


def blob(top, left, value=1.0, background=0.0):
    m = torch.full((1, 1, 4, 4), background)
    m[..., top : top + 2, left : left + 2] = value
    return m


def test_a_perfect_map_and_one_that_misses():
    hit, miss = blob(0, 0), blob(2, 2)
    both = torch.cat([hit, miss]), torch.cat([MASK, MASK])
    assert localisation.pointing_game(*both).tolist() == [True, False]
    assert localisation.mass_inside(*both).tolist() == [1, 0]
    assert localisation.localisation_iou(*both).tolist() == [1, 0]


def test_a_map_that_overlaps_by_half():
    m = blob(0, 1)
    assert localisation.mass_inside(m, MASK).item() == 0.5
    assert localisation.localisation_iou(m, MASK).item() == pytest.approx(2 / 6)
    # The top eight are the blob and, of the equal rest in reading order, pixels 0, 3, 4 and 7: the mask and four more.
    assert localisation.localisation_iou(m, MASK, quantile=0.5).item() == 4 / 8


def test_negative_values_count_nowhere():
    m = blob(0, 0, value=3.0, background=-1.0)
    m[..., 3, 3] = 4.0
    assert localisation.mass_inside(m, MASK).item() == pytest.approx(12 / 16)
    assert math.isnan(localisation.mass_inside(-m.abs(), MASK).item())


@pytest.mark.parametrize("scale", [1e-36, 1.0, 1e36])
def test_mass_is_blind_to_scale(scale):
    m = rand(1, 1, 4, 4)
    expected = (m * MASK).sum() / m.sum()
    assert localisation.mass_inside(m * scale, MASK).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_coarse_map_is_resized_to_the_image():
    coarse = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    assert localisation.pointing_game(coarse, MASK).item()
    assert localisation.localisation_iou(coarse, MASK).item() == 1
    fine = maps.resize(coarse, (4, 4))
    assert localisation.mass_inside(coarse, MASK).item() == localisation.mass_inside(fine, MASK).item()


def test_a_fine_map_is_averaged_down_to_the_image():
    fine = blob(0, 0).repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert localisation.localisation_iou(fine, MASK).item() == 1
    assert localisation.mass_inside(fine, MASK).item() > 0.85


@pytest.mark.parametrize(
    ("m", "mask"),
    [
        (torch.full((1, 1, 2, 2), 0.3), MASK),
        (blob(0, 0, value=torch.nan), MASK),
        (blob(0, 0), torch.zeros_like(MASK)),
    ],
)
def test_questions_without_sense_have_no_answer(m, mask):
    assert not localisation.pointing_game(m, mask).item()
    assert math.isnan(localisation.mass_inside(m, mask).item())
    assert math.isnan(localisation.localisation_iou(m, mask).item())
    assert math.isnan(localisation.localisation_iou(m, mask, quantile=0.8).item())


def test_by_chance_the_mass_inside_is_the_share_of_the_area(generator):
    m = torch.rand(2000, 1, 8, 8, generator=generator)
    mask = torch.zeros(2000, 1, 8, 8, dtype=torch.bool)
    mask[..., :4, :4] = True
    assert localisation.mass_inside(m, mask).mean().item() == pytest.approx(0.25, abs=0.005)
    assert localisation.pointing_game(m, mask).float().mean().item() == pytest.approx(0.25, abs=0.04)


def test_a_mask_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"H, W\].* got \(2, 1"):
        localisation.mass_inside(blob(0, 0), torch.cat([MASK, MASK]))
