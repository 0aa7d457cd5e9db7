"""Images that a training keeps back, on which its accuracy under attacks is watched."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import underfire as uf
from tests.networks import seeded
from tests.training.toys import X, Y, network, plan
from underfire.errors import InputError
from underfire.learning import Report
from underfire.training.images import split_off


def test_images_are_kept_back_and_watched() -> None:
    told = list[Report]()
    quick = plan(epochs=3, batch_size=4, held_out=4, watch=told.append)
    uf.training.adversarial(network(), (X, Y), steps=1, plan=quick, generator=seeded(1))
    measured = [report for report in told if report.metrics]
    assert [report.step for report in measured] == [2, 4, 6]  # eight images are left
    assert set(measured[0].metrics) == {"accuracy", "accuracy under fgsm", "accuracy under pgd"}
    (x, y), (x_kept, y_kept) = split_off((X, Y), 4, 0)
    rows = torch.cat([x, x_kept]).flatten(1)
    assert len(rows.unique(dim=0)) == 12 and len(y) == 8 and len(y_kept) == 4


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"patience": 2}, "held_out"),
        ({"held_out": -1}, "held_out"),
        ({"held_out": 2, "validate": lambda model: {}}, "validate"),
        ({"overfitting": "stop"}, "held_out"),
    ],
)
def test_what_does_not_fit_together_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        plan(**options)
