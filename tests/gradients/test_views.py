"""Many looks at one image, one at a time."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from underfire import Classifier
from underfire.gradients import views


def test_the_average_over_looks_is_that_of_one_graph_in_the_memory_of_one(
    smooth_model: Classifier, images: Tensor
) -> None:
    x = images.double()[:2]
    view = views.compose(
        views.eot(lambda v, g: v * (1 + torch.rand((), generator=g, dtype=v.dtype)), 3), views.scale_copies(2)
    )
    alive, most = [], []

    def value(look: Tensor, _: Tensor | None = None) -> Tensor:
        logits = smooth_model(look)
        alive.append(weakref.ref(logits))
        most.append(sum(ref() is not None for ref in alive))
        return logits.square().sum(1)

    one, other = (x.clone().requires_grad_(True) for _ in range(2))
    together = torch.stack([value(look) for look in view(one, torch.Generator().manual_seed(3))]).mean(0)
    most.clear(), alive.clear()
    apart = views.averaged(view, value, other, torch.Generator().manual_seed(3))
    assert torch.allclose(together, apart)
    assert torch.allclose(torch.autograd.grad(together.sum(), one)[0], torch.autograd.grad(apart.sum(), other)[0])
    assert max(most) == 1
    with torch.no_grad():
        assert torch.allclose(views.averaged(view, value, other, torch.Generator().manual_seed(3)), together)
