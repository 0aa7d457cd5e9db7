"""A run ends when its lowest loss stalls, each sample for itself; losses that rise for a while do not end it."""

import torch

from underfire.ascent.early_abort import EarlyAbort


def ends(losses, steps):
    """The step at which a run with these losses ends, or None."""
    abort = EarlyAbort(torch.zeros(1), steps)
    for step, loss in enumerate(losses):
        if bool(abort.stalled(torch.tensor([loss]), torch.tensor([step]))):
            return step
    return None


def test_a_loss_that_falls_goes_on_and_one_that_stalls_ends():
    assert ends([1000.0 - step for step in range(200)], 200) is None
    assert ends([10.0] * 200, 200) == 20  # the check after the first has nothing lower
    assert ends([10.0 - step for step in range(25)] + [10.0] * 175, 200) == 60
    assert ends([100 * 0.999999**step for step in range(200)], 200) == 20  # it falls by less than the share
    assert ends([float("nan")] * 200, 200) == 0


def test_a_loss_that_swings_goes_on_while_its_lowest_value_falls():
    swinging = [100.0 - step / 2 + 20 * (step % 7) for step in range(100)]
    assert ends(swinging, 100) is None


def test_short_runs_are_given_ten_steps():
    assert ends([10.0] * 30, 30) == 10
    assert ends([10.0] * 9, 9) is None


def test_runs_start_again_and_leave_for_themselves():
    abort = EarlyAbort(torch.zeros(3), 10)
    step = torch.tensor([0, 0, 0])
    for number in range(10):
        assert not bool(abort.stalled(torch.ones(3), step + number).any())
    abort.restart(torch.tensor([1]))
    step = torch.tensor([10, 0, 10])
    assert abort.stalled(torch.ones(3), step).tolist() == [True, False, True]
    abort.take(torch.tensor([1, 2]))
    assert abort.lowest.tolist() == [1.0, 1.0] and abort.before.tolist() == [1.0, 1.0]
