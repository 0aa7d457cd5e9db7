import pytest
import torch

from underfire.errors import InputError
from underfire.measures import perturbation


def test_a_change_measured_by_hand():
    x = torch.zeros(2, 3, 2, 2)
    x_adv = x.clone()
    x_adv[0, 0, 0, 0] = 0.3
    x_adv[0, 1, 0, 0] = -0.4
    found = perturbation.sizes(x, x_adv)
    assert found["linf"].tolist() == pytest.approx([0.4, 0])
    assert found["l2"].tolist() == pytest.approx([0.5, 0])
    assert found["l1"].tolist() == pytest.approx([0.7, 0])
    assert found["l0"].tolist() == [2, 0]
    assert perturbation.l0_pixels(x, x_adv).tolist() == [1, 0]


def test_half_precision_sums_are_taken_in_single():
    x = torch.zeros(1, 3, 64, 64, dtype=torch.bfloat16)
    x_adv = x + 0.25
    assert perturbation.l1(x, x_adv).item() == 3 * 64 * 64 * 0.25  # in bfloat16 a running sum stops growing long before
    assert perturbation.l1(x, x_adv).dtype == torch.float32
    assert perturbation.l0(x, x_adv).item() == 3 * 64 * 64


def test_the_box_is_closed_and_has_no_tolerance():
    x = torch.tensor([[0.0, 1.0], [0.0, 1.0 + 1e-6], [-1e-30, 1.0], [0.5, torch.nan]])
    assert perturbation.in_box(x).tolist() == [True, False, False, False]


def test_different_shapes_are_refused():
    with pytest.raises(InputError, match=r"4, 4\) and \(2, 3"):
        perturbation.linf(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 5))
    with pytest.raises(InputError, match=r"got \(2, 5\)"):
        perturbation.l0_pixels(torch.zeros(2, 5), torch.zeros(2, 5))
