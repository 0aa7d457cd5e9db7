"""Define residual networks for images of 32 x 32 pixels."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from underfire.models.architectures.same import Same3x3


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut without parameters (option A of He et al. 2015)."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.stride = stride
        self.before = (width - width_in) // 2  # the shortcut gets zero channels before and after its own
        self.after = width - width_in - self.before

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, D, H / stride, W / stride]`."""
        z = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.before or self.after:
            x = F.pad(x, (0, 0, 0, 0, self.before, self.after))
        return self.relu2(z + x)


class ResNet(nn.Module):
    """A residual network for small images: a 3x3 stem, groups of `ResidualBlock`, global average, one linear layer.

    Source: He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2.

    Args:
        channels: the number of channels of an image.
        stem: the width and the stride of the first convolution.
        groups: for each group its width, the number of blocks, and the stride of its first block.
    """

    def __init__(self, channels: int, stem: tuple[int, int], groups: tuple[tuple[int, int, int], ...]) -> None:
        super().__init__()
        width = stem[0]
        self.conv1 = nn.Conv2d(channels, width, 3, stem[1], padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.groups = len(groups)
        for number, (wider, blocks, stride) in enumerate(groups, 1):
            first = ResidualBlock(width, wider, stride)
            rest = (ResidualBlock(wider, wider, 1) for _ in range(blocks - 1))
            self.add_module(f"layer{number}", nn.Sequential(first, *rest))
            width = wider
        self.linear = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[B, 10]` of normalised images `[B, C, H, W]`."""
        x = self.relu(self.bn1(self.conv1(x)))
        for number in range(1, self.groups + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return self.linear(x.mean((2, 3)))


class WResnet(nn.Module):
    """A residual network of 31 convolutions without batch norm; a ReLU is before each but the first.

    Source: Boopathy et al.: Proper Network Interpretability Helps Adversarial Robustness in Classification, ICML 2020.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (16,) * 11 + (32,) * 10 + (64,) * 10
        self.conv1 = Same3x3(3, 16)
        self.relu = nn.ReLU()
        for number in range(2, 32):
            width_in, width = widths[number - 2 : number]
            self.add_module(f"conv{number}", Same3x3(width_in, width, 2 if width > width_in else 1))
        self.features = nn.Identity()  # gives the last feature maps a name, for hooks
        self.head = nn.Linear(64, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[B, 10]` of images `[B, 3, 32, 32]`."""
        x = self.conv1(x)
        for number in range(2, 32, 2):
            z = self.get_submodule(f"conv{number}")(self.relu(x))
            z = self.get_submodule(f"conv{number + 1}")(self.relu(z))
            if z.shape != x.shape:
                extra = (z.shape[1] - x.shape[1]) // 2
                x = F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, extra, extra))
            x = x + z
        return self.head(self.features(x).mean((2, 3)))
