"""The small networks and random tensors that tests share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from underfire.model import Classifier


def seeded(seed: int = 0) -> torch.Generator:
    """Return a generator of a fixed seed."""
    return torch.Generator().manual_seed(seed)


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return uniform numbers in [0, 1) of a fixed seed."""
    return torch.rand(*shape, generator=seeded(seed), dtype=dtype)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return standard normal numbers of a fixed seed."""
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def build_network(
    kind: str = "relu", dtype: torch.dtype = torch.float32, *, channels: int = 3, classes: int = 4, seed: int = 0
) -> Classifier:
    """Return a small convolutional classifier with global average pooling; `kind` is "relu" or "smooth"."""
    activation = {"relu": nn.ReLU, "smooth": nn.Softplus}[kind]
    body = nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1),
        activation(),
        nn.Conv2d(8, 8, 3, padding=1, stride=2),
        activation(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, classes),
    ).to(dtype)
    generator = seeded(seed)
    with torch.no_grad():
        for parameter in body.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 16
            parameter.copy_(
                torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * (2 / fan_in) ** 0.5
            )
    return Classifier(body.eval(), mean=0.5, std=0.25)


def linear(weight: Tensor, bias: Tensor | float = 0.0) -> nn.Sequential:
    """Return the network of logits `<w_k, x> + b_k`; its last layer is index 1.

    Args:
        weight: one row for each class, `[K, ...]`; what follows the first dimension is flattened.
        bias: `[K]`, or one number for all classes.
    """
    rows = weight.flatten(1)
    layer = nn.Linear(rows.shape[1], len(rows), dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(rows)
        layer.bias.copy_(torch.as_tensor(bias, dtype=weight.dtype).expand(len(rows)))
    return nn.Sequential(nn.Flatten(), layer).eval()


def centred_linear(weight: Tensor) -> nn.Sequential:
    """Return the network of logits `<w_k, x - 1/2>`."""
    return linear(weight, -weight.flatten(1).sum(1) / 2)


def half_space(weight: Tensor, bias: float = 0.0) -> nn.Sequential:
    """Return the network of two logits, 0 and `<w, x> + b`: class 1 on one side of a plane, class 0 on the other."""
    return linear(torch.stack([torch.zeros_like(weight), weight]), torch.tensor([0.0, bias], dtype=weight.dtype))


class TwoBoundaries:
    """A linear classifier of three classes, grey images `[6, 1, 4, 5]` of class 0, and the distances to the others.

    Attributes:
        model: the classifier, float64.
        x: images, far enough from the borders of the box not to meet them on the way (in L2 and L-infinity).
        y: their labels, all 0.
    """

    def __init__(self) -> None:
        draw = seeded(5)
        self.x = 0.4 + 0.2 * torch.rand(6, 1, 4, 5, generator=draw, dtype=torch.float64)
        self.y = torch.zeros(6, dtype=torch.int64)
        weight = torch.randn(3, 20, generator=draw, dtype=torch.float64)
        # Class 2 has the higher logit, but a slope so small that its boundary is farther away.
        weight[2] = weight[0] + 0.4 * (weight[2] - weight[0])
        body = linear(weight)
        with torch.no_grad():
            logits = body(self.x)
            body[1].bias -= (logits - logits[:, :1]).amax(0) + torch.tensor([0.0, 1.0, 0.8], dtype=torch.float64)
        self.model = Classifier(body)

    def distance(self, norm: str, goal: int | None = None) -> Tensor:
        """How far the nearest boundary, or that to class `goal`, is, `[6]`; for L0 how many entries must change."""
        head = self.model.module[1]
        lead = self.model(self.x).detach()
        found = []
        for k in (1, 2) if goal is None else (goal,):
            w, gap = (head.weight[k] - head.weight[0]).detach(), lead[:, 0] - lead[:, k]
            if norm == "l0":
                # The entries that gain most, each moved as far as the box lets it.
                gain = torch.where(w > 0, w * (1 - self.x.flatten(1)), -w * self.x.flatten(1))
                total = gain.sort(dim=1, descending=True).values.cumsum(1)
                found.append((total <= gap[:, None]).sum(1) + 1.0)
            elif norm == "l1":
                # The steepest entries first, each as far as the box lets it.
                slope, order = w.abs().sort(descending=True)
                room = torch.where(w > 0, 1 - self.x.flatten(1), self.x.flatten(1))[:, order]
                before = (slope * room).cumsum(1) - slope * room
                found.append(((gap[:, None] - before) / slope).clamp_min(0).minimum(room).sum(1))
            else:
                dual = {"l2": 2, "linf": 1}[norm]
                found.append(gap / torch.linalg.vector_norm(w, ord=dual))
        return torch.stack(found).amin(0)
