"""The encoder loss of RTS: by hand, as a term of ADV², and absent from interpreters without an encoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

import underfire as uf
from tests.attacks.adv2.conftest import Case
from underfire.attacks.adv2.framework import encoder_term
from underfire.data import Dataset
from underfire.errors import InputError
from underfire.hooks import activations
from underfire.interpreters import RTS
from underfire.testing.interpreter import KnownImages


@pytest.fixture(scope="module")
def rts(small: Case) -> RTS:
    return RTS().fit(small.model, Dataset("known", KnownImages()), selector_steps=30, steps=2, batch_size=8)


def test_it_is_the_cross_entropy_of_the_selector(small: Case, rts: RTS) -> None:
    trained = rts._for(small.model)
    _, outputs = activations(small.model, small.x, trained.layers)
    embedding = trained.network.selector.embedding(small.goal)
    logit = (outputs[trained.layers[0]].mean((2, 3)) * embedding).sum(1)
    wanted = F.binary_cross_entropy_with_logits(logit, torch.ones(6), reduction="none")
    assert torch.allclose(rts.encoder_loss(small.model, small.x, small.goal), wanted, atol=1e-6)


def test_its_weight_lowers_it(small: Case, rts: RTS) -> None:
    options: dict[str, Any] = {"goal": small.goal, "eps": 0.1, "steps": 12, "warm_steps": 0, "confidence": 0.0}
    found = []
    for weight in (0.0, 50.0):
        x_adv = uf.attacks.adv2(
            small.model, small.x, small.y, interpreter=rts, weight=0.0, encoder_weight=weight, **options
        )
        found.append(rts.encoder_loss(small.model, x_adv, small.goal).mean())
    assert found[1] < found[0]


def test_only_a_network_that_explains_has_one(rts: RTS) -> None:
    assert encoder_term(uf.interpreters.cam, 0.1) is None
    assert encoder_term(rts, 0.0) is None
    assert encoder_term(rts, 0.1) is not None
    with pytest.raises(InputError, match="encoder_weight"):
        encoder_term(rts, -1.0)
