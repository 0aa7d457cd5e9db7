"""Define networks of depthwise convolutions for ImageNet: MobileNet v1 and v2, and EfficientNet-lite0."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from underfire.models.architectures.same import SameConv2d


class _ConvUnit(nn.Module):
    """A convolution without bias, batch norm and ReLU6; the unit is linear if `active` is False."""

    def __init__(
        self, width_in: int, width: int, kernel: int, stride: int = 1, groups: int = 1, active: bool = True
    ) -> None:
        super().__init__()
        self.conv = SameConv2d(width_in, width, kernel, stride, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=1e-3)
        self.relu = nn.ReLU6() if active else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


class _Separable(nn.Module):
    """A depthwise 3x3 convolution and a pointwise one (Howard et al. 2017)."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.depthwise = _ConvUnit(width_in, width_in, 3, stride, groups=width_in)
        self.pointwise = _ConvUnit(width_in, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class MobileNetV1(nn.Module):
    """MobileNet v1 of width 0.75 for 1,000 classes, with TensorFlow's padding.

    Source: Howard et al.: MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications, 2017.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (24, 48, 96, 96, 192, 192, 384, 384, 384, 384, 384, 384, 768, 768)
        strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
        self.stem = _ConvUnit(3, widths[0], 3, 2)
        self.blocks = nn.Sequential(
            *(_Separable(*sizes) for sizes in zip(widths[:-1], widths[1:], strides, strict=True))
        )
        self.head = nn.Linear(widths[-1], 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[B, 1000]` of images `[B, 3, H, W]` in `[-1, 1]`."""
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class _FoldedUnit(SameConv2d):
    """A convolution with bias, into which the batch norm is folded, and ReLU6; it is linear if `active` is False."""

    def __init__(
        self, width_in: int, width: int, kernel: int, stride: int = 1, groups: int = 1, active: bool = True
    ) -> None:
        super().__init__(width_in, width, kernel, stride, groups=groups)
        self.relu = nn.ReLU6() if active else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(super().forward(x))


class _InvertedResidual(nn.Module):
    """Expand the channels, filter each channel, and project back; add the input if the shape is the same."""

    def __init__(
        self, unit: Callable[..., nn.Module], width_in: int, width: int, kernel: int, stride: int, factor: int
    ) -> None:
        super().__init__()
        inner = width_in * factor
        self.expand = unit(width_in, inner, 1) if factor > 1 else nn.Identity()
        self.depthwise = unit(inner, inner, kernel, stride, groups=inner)
        self.project = unit(inner, width, 1, active=False)
        self.adds = stride == 1 and width_in == width

    def forward(self, x: Tensor) -> Tensor:
        z = self.project(self.depthwise(self.expand(x)))
        return x + z if self.adds else z


class _InvertedResidualNet(nn.Module):
    """A stem, groups of inverted residuals, a 1x1 convolution, global average and one linear layer for 1,000 classes.

    Args:
        unit: builds a convolution with its activation.
        groups: for each group its width, kernel, the stride of its first block, the factor of expansion, and the number
            of blocks.
    """

    def __init__(self, unit: Callable[..., nn.Module], groups: Sequence[tuple[int, int, int, int, int]]) -> None:
        super().__init__()
        self.stem, blocks, width = unit(3, 32, 3, 2), [], 32
        for wider, kernel, first, factor, repeats in groups:
            for number in range(repeats):
                stride = 1 if number else first
                blocks.append(_InvertedResidual(unit, width, wider, kernel, stride, factor))
                width = wider
        self.blocks = nn.Sequential(*blocks)
        self.top = unit(width, 1280, 1)
        self.head = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[B, 1000]` of normalised images `[B, 3, H, W]`."""
        return self.head(self.top(self.blocks(self.stem(x))).mean((2, 3)))


class EfficientNetLite0(_InvertedResidualNet):
    """EfficientNet-lite0: EfficientNet-B0 without squeeze-and-excitation, with ReLU6 and TensorFlow's padding.

    Source: Tan and Le: EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019; the lite
    variant is in the authors' repository.
    """

    def __init__(self) -> None:
        groups = (
            (16, 3, 1, 1, 1),
            (24, 3, 2, 6, 2),
            (40, 5, 2, 6, 2),
            (80, 3, 2, 6, 3),
            (112, 5, 1, 6, 3),
            (192, 5, 2, 6, 4),
            (320, 3, 1, 6, 1),
        )
        super().__init__(_ConvUnit, groups)


class MobileNetV2(_InvertedResidualNet):
    """MobileNet v2 of width 1 with TensorFlow's padding; its batch norms are folded into the convolutions.

    Source: Sandler et al.: MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018.
    """

    def __init__(self) -> None:
        groups = (
            (16, 3, 1, 1, 1),
            (24, 3, 2, 6, 2),
            (32, 3, 2, 6, 3),
            (64, 3, 2, 6, 4),
            (96, 3, 1, 6, 3),
            (160, 3, 2, 6, 3),
            (320, 3, 1, 6, 1),
        )
        super().__init__(_FoldedUnit, groups)
