"""Small classifiers and batches for every domain, on which the contracts are checked."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from underfire.ascent.threats import BALLS
from underfire.domains import IMAGES, Domain
from underfire.model import Classifier

#: The domains that a card may name; each column of the table has its own bounds, and the last two may not change.
DOMAINS = {
    "image": IMAGES,
    "table": Domain(
        "table",
        2,
        low=(-1.0, 0.0, 0.0, -2.0, 0.0, 0.0, 0.0, 0.0),
        high=(3.0, 1.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0),
        kinds=("numeric",) * 6 + ("categorical", "immutable"),
    ),
    "series": Domain("series", 3),
}
#: Shapes of one sample; images are not square, so that a method that swaps height and width fails.
SHAPES = {"image": (3, 9, 12), "table": (8,), "series": (4, 6)}

#: A medium and a large perturbation of the toy images, by norm.
EPS = {"linf": 0.1, "l2": 1.0, "l1": 10.0, "l0": 20.0, "pixels": 5, "flow": 0.5, "patch": 0.2}
BIG = {"linf": 0.5, "l2": 8.0, "l1": 120.0, "l0": 300.0, "pixels": 100, "flow": 4.0, "patch": 0.55}


def largest(norm: str, domain: str, x: Tensor) -> float:
    """Return the size of the change of a whole input, in a norm that has a ball; infinite in any other."""
    return BALLS[norm](0.0).in_domain(DOMAINS[domain]).largest(x) if norm in BALLS else math.inf


def toy_batch(domain: str = "image", n: int = 5, *, shape: tuple[int, ...] = (), dtype: torch.dtype) -> Tensor:
    """Return random samples `[n, ...]` inside the box, with some values on its border."""
    kind, shape = DOMAINS[domain], shape or SHAPES[domain]
    share = torch.rand(n, *shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    if domain == "image":
        share[..., 0, 0], share[..., 1, 1] = 0, 1
    else:
        share[..., 0], share[..., 1] = share[..., 0].round(), share[..., 1].round()
    low, high = (torch.as_tensor(bound, dtype=dtype) for bound in (kind.low, kind.high))
    return low + (high - low) * share


def toy_classifier(
    domain: str = "image", *, shape: tuple[int, ...] = (), classes: int = 4, dtype: torch.dtype = torch.float32
) -> Classifier:
    """Return a small ReLU network with fixed weights: convolutional for images, dense for other domains."""
    kind, shape = DOMAINS[domain], shape or SHAPES[domain]
    if domain == "image":
        layers: list[nn.Module] = [
            nn.Conv2d(shape[0], 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, classes),
        ]
    else:
        layers = [nn.Flatten(), nn.Linear(math.prod(shape), 16), nn.ReLU(), nn.Linear(16, classes)]
    body = nn.Sequential(*layers).to(dtype).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in body.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 16
            weights = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(weights * (2 / fan_in) ** 0.5)
    mean, std = (0.5, 0.25) if domain == "image" else (0.0, 1.0)
    return Classifier(body, mean=mean, std=std, domain=kind)


class _Transformer(nn.Module):
    """A vision transformer of two blocks, with patches of 3 x 3 pixels and a class token."""

    def __init__(self, width: int = 8, classes: int = 4) -> None:
        super().__init__()
        channels, height, columns = SHAPES["image"]
        self.embed, self.norm, self.head = (
            nn.Conv2d(channels, width, 3, 3),
            nn.LayerNorm(width),
            nn.Linear(width, classes),
        )
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.zeros(1, 1 + height // 3 * (columns // 3), width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, 16, 0.0, "gelu", batch_first=True, norm_first=True) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        z = torch.cat([self.first.expand(len(x), -1, -1), self.embed(x).flatten(2).transpose(1, 2)], 1) + self.places
        for block in self.blocks:
            z = block(z)
        return self.head(self.norm(z)[:, 0])


def toy_transformer(dtype: torch.dtype = torch.float32) -> Classifier:
    """Return a small vision transformer with fixed weights, for images."""
    body = _Transformer().to(dtype).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in body.named_parameters():
            size = 0.05 if name in ("first", "places") or name.endswith("bias") else 0.5  # the image decides
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return Classifier(body, mean=0.5, std=0.25)
