"""The networks of the zoo, with the parameter names of their published weights."""

from underfire.models.architectures.mobile import EfficientNetLite0, MobileNetV1, MobileNetV2
from underfire.models.architectures.preactivation import PreactivationResNet
from underfire.models.architectures.residual import ResidualBlock, ResNet, WResnet
from underfire.models.architectures.same import SameConv2d
from underfire.models.architectures.small import MnistSmall, badnet, certified_small, trades_small
from underfire.models.architectures.squeezenet import SqueezeNet

__all__ = [
    "EfficientNetLite0",
    "MnistSmall",
    "MobileNetV1",
    "MobileNetV2",
    "PreactivationResNet",
    "ResNet",
    "ResidualBlock",
    "SameConv2d",
    "SqueezeNet",
    "WResnet",
    "badnet",
    "certified_small",
    "trades_small",
]
