"""Attacks that read the logits alone compute batch norms inside convolutions; the images stay the same."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn

import underfire as uf
from tests.networks import rand
from underfire.ascent import loop
from underfire.model import Classifier, Ensemble

STEPS = 5


def network(seed: int) -> nn.Sequential:
    """Two convolutions with batch norms whose statistics are not 0 and 1."""
    layers = (*(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), *(nn.Conv2d(4, 5, 3, 2), nn.BatchNorm2d(5)))
    made = nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*made.parameters(), *made.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(0.2 + torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype))
                tensor.sub_(0.6 if tensor.dim() > 1 else 0)
    return made


@pytest.mark.parametrize(
    ("name", "options", "unfolded"),
    [
        ("si_ni_ti_dim", {"size": 3}, 0),
        ("atta", {"outer_steps": 2, "inner_steps": 2, "kernels": (3, 3)}, 0),
        ("vmi_fgsm", {"samples": 2}, 0),
        ("svre", {"inner_steps": 2}, 0),
        ("tap", {}, 1),
        ("ata", {}, 1 + STEPS),
        ("tap", {"layers": ("0", "3")}, 1 + STEPS),
    ],
)
def test_the_images_are_those_without_folding(
    name: str, options: dict[str, Any], unfolded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = [network(1), network(2)] if name == "svre" else [network(1)]
    made = [Classifier(module, mean=0.4, std=0.3) for module in modules]
    model = Ensemble(made) if name == "svre" else made[0]
    x, y = rand(3, 3, 12, 12, seed=3).double(), torch.tensor([0, 1, 2])
    calls, forward = list[int](), nn.BatchNorm2d.forward

    def counted(norm: nn.BatchNorm2d, z: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return forward(norm, z)

    monkeypatch.setattr(nn.BatchNorm2d, "forward", counted)
    before = {key: value.clone() for key, value in model.state_dict().items()}

    def run() -> torch.Tensor:
        calls.clear()
        return uf.find("attack", name)(model, x, y, eps=0.1, steps=STEPS, **options)

    run()  # the pass that finds the batch norms is made once
    found, passes = run(), len(calls)
    monkeypatch.setattr(loop, "folded_passes", lambda model, x: nullcontext())
    assert torch.allclose(found, run(), atol=1e-9)
    assert passes == 2 * unfolded  # each has two norms; what a term reads on clean images comes before
    assert len(calls) > passes or unfolded > 1
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
