"""Define residual networks with the activation before each convolution, for images of 32 x 32 pixels."""

from __future__ import annotations

from torch import Tensor, nn


class PreactivationBlock(nn.Module):
    """Two 3x3 convolutions, each after batch norm and ReLU, and a 1x1 convolution as the shortcut where it is needed.

    Args:
        width_in: channels of the input.
        width: channels of the output.
        stride: stride of the first convolution and of the shortcut.
    """

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width_in)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        changes = stride != 1 or width_in != width
        self.shortcut = nn.Conv2d(width_in, width, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, D, H / stride, W / stride]`."""
        z = self.relu1(self.bn1(x))
        kept = x if self.shortcut is None else self.shortcut(z)
        return self.conv2(self.relu2(self.bn2(self.conv1(z)))) + kept


class PreactivationResNet(nn.Module):
    """A 3x3 convolution, four groups of blocks, batch norm, ReLU, global average and one linear layer.

    With two blocks in each group and 64 channels in the first one it is the PreAct ResNet-18 of studies on CIFAR-10.
    Source: He, Zhang, Ren and Sun: Identity Mappings in Deep Residual Networks, ECCV 2016.

    Args:
        width: channels of the first group; each later group has twice as many.
        blocks: blocks of each group.
    """

    def __init__(self, width: int = 64, blocks: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        before = width
        for number in range(4):
            wider, stride = width * 2**number, 1 if number == 0 else 2
            first = PreactivationBlock(before, wider, stride)
            rest = (PreactivationBlock(wider, wider, 1) for _ in range(blocks - 1))
            self.add_module(f"layer{number + 1}", nn.Sequential(first, *rest))
            before = wider
        self.bn = nn.BatchNorm2d(before)
        self.relu = nn.ReLU()
        self.linear = nn.Linear(before, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[B, 10]` of normalised images `[B, 3, 32, 32]`."""
        x = self.conv1(x)
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        return self.linear(self.relu(self.bn(x)).mean((2, 3)))
