"""The baselines that read only the logits."""

import pytest
import torch

from tests.networks import build_network, rand
from underfire.detectors import Energy, Softmax
from underfire.errors import InputError
from underfire.records import Batch


def test_softmax_and_energy_word_for_word():
    model, x = build_network(), rand(6, 3, 8, 8)
    clean = Batch(x, torch.zeros(6, dtype=torch.int64), tuple("abcdef"))
    logits = model.predict(x)
    assert torch.allclose(Softmax().fit(model, clean).score(model, x), 1 - logits.softmax(1).max(1).values, atol=1e-6)
    wanted = -2 * (logits / 2).exp().sum(1).log()
    assert torch.allclose(Energy(temperature=2).fit(model, clean).score(model, x), wanted, atol=1e-5)
    with pytest.raises(InputError, match="temperature"):
        Energy(temperature=0)
