"""Boxes and masks from maps, with a threshold that was chosen elsewhere."""

import math

import pytest
import torch
from torch import nn

from underfire.errors import InputError
from underfire.measures import weak_localisation as weak
from underfire.measures.regions import SWEEPS, choose_on_other_half, regions
from underfire.measures.weak_segmentation import segmentation_ap, segmentation_iou, segmentation_sweep


def hill(left, top, right, bottom, side=16, glow=0.0):
    """A map that is 1 in a box, and `glow` in a ring of two pixels around it."""
    m = torch.zeros(1, 1, side, side)
    m[..., max(0, top - 2) : bottom + 2, max(0, left - 2) : right + 2] = glow
    m[..., top:bottom, left:right] = 1
    return m


BOXES = torch.tensor([[3, 2, 8, 9], [1, 1, 6, 4], [5, 6, 12, 11], [2, 8, 10, 14]])


@pytest.mark.parametrize("rule", SWEEPS)
def test_perfect_maps_find_every_box(rule):
    m = torch.cat([hill(*box.tolist()) for box in BOXES])
    found = weak.localise(m, BOXES, rule=rule)
    assert found.hit.tolist() == [1, 1, 1, 1]
    assert weak.localisation_error(m, BOXES, rule=rule) == 0
    assert torch.equal(weak.localise(m, BOXES.flip(0), rule=rule).hit, torch.zeros(4))
    if rule != "energy":  # which takes a share of the object
        assert torch.equal(found.box, BOXES)
        assert found.iou.tolist() == [1, 1, 1, 1]


def slow_box(picture):
    """The largest part connected by edges, by flooding, and its tight box."""
    left, best = {(r, c) for r, c in picture.nonzero().tolist()}, set()
    while left:
        part, edge = set(), [min(left)]
        while edge:
            r, c = edge.pop()
            if (r, c) in left:
                left.discard((r, c))
                part.add((r, c))
                edge += [(r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)]
        best = part if len(part) > len(best) else best
    rows, columns = [r for r, _ in best] or [0, -1], [c for _, c in best] or [0, -1]
    return [min(columns), min(rows), max(columns) + 1, max(rows) + 1] if best else [0, 0, 0, 0]


def test_the_box_of_the_largest_part(generator):
    inside = torch.rand(60, 9, 11, generator=generator) > torch.linspace(0.0, 0.95, 60)[:, None, None]
    inside[[1, 30, 59]] = False
    inside[10:12], inside[12, :, 4] = True, True  # full ones do not touch each other
    assert weak.largest_box(inside).tolist() == [slow_box(picture) for picture in inside]
    assert weak.largest_box(inside[:0]).shape == (0, 4)
    assert weak.largest_box(inside[1:2]).tolist() == [[0, 0, 0, 0]]


def test_regions_by_hand():
    m = torch.tensor([[[[8.0, 4.0], [2.0, 0.0]]]])  # scaled: 1, 1/2, 1/4, 0; mean 7/16; sum 7/4

    def sizes(rule, *alphas):  # the four pixels are in order, so a region is its size
        found = regions(m, rule, alphas)[0].flatten(1)
        assert torch.equal(found, found.sort(dim=1, descending=True).values)
        return found.sum(1).tolist()

    assert sizes("value", 0.5, 0.0, 0.51) == [2, 4, 1]
    assert sizes("mean", 1.0, 10.0) == [2, 0]
    assert sizes("energy", 0.0, 0.6, 0.9) == [1, 2, 3]


def slow_region(m, rule, alpha):
    """One map `[h, w]`, one threshold, as the rules are written."""
    scaled = (m - m.min()) / (m.max() - m.min())
    if rule != "energy":
        return scaled >= (alpha if rule == "value" else alpha * scaled.mean())
    limit, held = torch.inf, 0.0
    for value in scaled.flatten().sort(descending=True).values:
        limit, held = value, held + value
        if held >= alpha * scaled.sum() * (1 - 1e-6):
            break
    return scaled >= limit


@pytest.mark.slow
@pytest.mark.parametrize("rule", SWEEPS)
def test_all_thresholds_at_once_are_each_of_them(rule, generator):
    smooth = torch.rand(3, 1, 5, 4, generator=generator, dtype=torch.float64)
    ties = torch.randint(0, 4, (3, 1, 5, 4), generator=generator).double()
    m = nn.functional.interpolate(torch.cat([smooth, ties, -smooth]), size=(20, 17), mode="bilinear")
    wanted = torch.stack([torch.stack([slow_region(one[0], rule, alpha) for alpha in SWEEPS[rule]]) for one in m])
    assert torch.equal(regions(m, rule), wanted)
    boxes = torch.tensor([[2, 3, 12, 15]]).expand(9, 4)
    found = weak.localise(m, boxes, rule=rule)
    for i, threshold in enumerate(found.threshold.tolist()):
        assert found.box[i].tolist() == slow_box(wanted[i, SWEEPS[rule].index(threshold)])


def test_intersection_over_union_of_boxes():
    a, b = torch.tensor([[0, 0, 4, 4]]), torch.tensor([[[2, 2, 6, 6], [0, 0, 4, 2], [4, 4, 8, 8], [0, 0, 0, 0]]])
    assert weak.box_iou(a[:, None], b)[0].tolist() == pytest.approx([4 / 28, 0.5, 0, 0])


def test_no_image_helps_to_choose_for_itself():
    scores = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    chosen, place = choose_on_other_half(scores)  # each half does best where the other does worst
    assert chosen.tolist() == [0, 0, 0, 0]
    assert place.tolist() == [1, 0, 1, 0]


def test_by_chance_nothing_is_gained_from_many_thresholds(generator):
    """The score of maps of noise with chosen thresholds is that of any fixed one, up to chance."""
    scores = (torch.rand(4000, 20, generator=generator) < 0.3).float()
    assert choose_on_other_half(scores)[0].mean().item() == pytest.approx(0.3, abs=0.03)


def test_any_of_several_boxes_counts_and_maps_are_resized():
    m = torch.cat([hill(*box.tolist()) for box in BOXES])
    several = torch.stack([BOXES.flip(0), BOXES, torch.zeros_like(BOXES)], 1)
    assert weak.localisation_error(m, several) == 0
    assert weak.localisation_error(m, 2 * BOXES, size=(32, 32)) == 0
    assert weak.localisation_error(m, 2 * BOXES) == 1


def test_questions_without_sense_are_left_out():
    m = torch.cat([hill(*box.tolist()) for box in BOXES])
    m[1], m[2, 0, 0, 0] = 0.25, torch.nan
    found = weak.localise(m, BOXES)
    assert found.hit.isnan().tolist() == [False, True, True, False]
    assert found.threshold.isnan().tolist() == [False] * 4  # the other half still chose one
    assert weak.localisation_error(m, BOXES) == 0
    boxes = BOXES.clone()
    boxes[3] = 0  # now the odd half has nothing to choose by
    assert math.isnan(weak.localisation_error(m, boxes))
    assert math.isnan(weak.localisation_error(m[:1], BOXES[:1]))
    with pytest.raises(InputError, match="'values'.* 'value'"):
        weak.localise(m, BOXES, rule="values")
    with pytest.raises(InputError, match=r"boxes .*\[4, n, 4\]"):
        weak.localise(m, BOXES[:2])


def masks():
    inside = torch.zeros(4, 1, 16, 16, dtype=torch.bool)
    for i, (left, top, right, bottom) in enumerate(BOXES.tolist()):
        inside[i, 0, top:bottom, left:right] = True
    return inside


def test_average_precision_as_scikit_learn(generator):
    metrics = pytest.importorskip("sklearn.metrics")
    m = torch.randint(0, 7, (4, 1, 16, 16), generator=generator).double() + masks()
    wanted = [metrics.average_precision_score(masks()[i].flatten(), m[i].flatten()) for i in range(4)]
    assert segmentation_ap(m, masks()).tolist() == pytest.approx(wanted)


def test_segmentation_of_perfect_and_of_random_maps(generator):
    perfect = torch.cat([hill(*box.tolist(), glow=0.3) for box in BOXES])
    assert segmentation_ap(perfect, masks()).tolist() == [1, 1, 1, 1]
    assert segmentation_iou(perfect, masks()) == 1
    noise = torch.rand(200, 1, 16, 16, generator=generator)
    mask = masks()[:1].expand(200, -1, -1, -1)
    assert segmentation_ap(noise, mask).mean().item() == pytest.approx(35 / 256, abs=0.03)


@pytest.mark.parametrize("rule", SWEEPS)
def test_the_sweep_against_a_loop(rule, generator):
    m = torch.rand(4, 1, 16, 16, generator=generator)
    found = segmentation_sweep(m, masks(), rule)
    for i in range(4):
        for t, alpha in enumerate(SWEEPS[rule]):
            taken, inside = slow_region(m[i, 0], rule, alpha), masks()[i, 0]
            assert found[i, t].item() == pytest.approx(float((taken & inside).sum() / (taken | inside).sum()))


def test_segmentation_without_sense():
    m, mask = torch.cat([hill(*box.tolist()) for box in BOXES]), masks()
    m[0], mask[1] = 1, False
    assert segmentation_ap(m, mask).isnan().tolist() == [True, True, False, False]
    assert segmentation_sweep(m, mask).isnan().any(1).tolist() == [True, True, False, False]
    assert segmentation_iou(m, mask) == 1
    assert math.isnan(segmentation_iou(m[:2], mask[:2]))
