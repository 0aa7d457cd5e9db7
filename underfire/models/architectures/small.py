"""Define small networks of published studies on robustness, for MNIST and CIFAR-10."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from underfire.models.architectures.same import SameConv2d


class MnistSmall(nn.Module):
    """Three convolutions and a linear layer on the spatial mean of the last, which has no activation.

    Source: Boopathy et al.: Proper Network Interpretability Helps Adversarial Robustness in Classification, ICML 2020.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = SameConv2d(1, 16, 4, 2)
        self.relu1 = nn.ReLU()
        self.conv2 = SameConv2d(16, 32, 4, 2)
        self.relu2 = nn.ReLU()
        self.conv3 = SameConv2d(32, 100, 7)
        self.head = nn.Linear(100, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[B, 10]` of images `[B, 1, 28, 28]`."""
        return self.head(self.conv3(self.relu2(self.conv2(self.relu1(self.conv1(x))))).mean((2, 3)))


def trades_small(dropout: float = 0.0) -> nn.Sequential:
    """Return the network for MNIST of TRADES: four 3x3 convolutions and three linear layers.

    Args:
        dropout: the share of the features between the first two linear layers that dropout removes; 0 has no dropout.

    Source: Zhang et al.: Theoretically Principled Trade-off between Robustness and Accuracy, ICML 2019. Its widths are
    those of the network of Carlini and Wagner: Towards Evaluating the Robustness of Neural Networks, S&P 2017.
    """
    widths, layers = (1, 32, 32, 64, 64), OrderedDict[str, nn.Module]()
    for number in range(1, 5):
        layers[f"conv{number}"] = nn.Conv2d(widths[number - 1], widths[number], 3)
        layers[f"relu{number}"] = nn.ReLU()
        if number % 2 == 0:
            layers[f"pool{number}"] = nn.MaxPool2d(2)
    head = OrderedDict[str, nn.Module](fc1=nn.Linear(1024, 200), relu1=nn.ReLU())
    if dropout:
        head["drop"] = nn.Dropout(dropout)
    head.update(fc2=nn.Linear(200, 200), relu2=nn.ReLU(), fc3=nn.Linear(200, 10))
    parts = OrderedDict(feature_extractor=nn.Sequential(layers), flatten=nn.Flatten(), classifier=nn.Sequential(head))
    return nn.Sequential(parts)


def certified_small(channels: int, side: int) -> nn.Sequential:
    """Return the small network that was trained to be certified, for square images with sides of `side` pixels.

    Source: Wong and Kolter: Provable Defenses against Adversarial Examples via the Convex Outer Adversarial Polytope,
    ICML 2018.
    """
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=nn.Conv2d(channels, 16, 4, 2, padding=1),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(16, 32, 4, 2, padding=1),
            relu2=nn.ReLU(),
            flatten=nn.Flatten(),
            fc1=nn.Linear(32 * (side // 4) ** 2, 100),
            relu3=nn.ReLU(),
            fc2=nn.Linear(100, 10),
        )
    )


def badnet(channels: int, side: int) -> nn.Sequential:
    """Return the network into which backdoors were trained, for square images with sides of `side` pixels.

    Source: Gu, Dolan-Gavitt and Garg: BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain,
    2017.
    """
    pooled = ((side - 4) // 2 - 4) // 2
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=nn.Conv2d(channels, 16, 5),
            relu1=nn.ReLU(),
            pool1=nn.AvgPool2d(2),
            conv2=nn.Conv2d(16, 32, 5),
            relu2=nn.ReLU(),
            pool2=nn.AvgPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(32 * pooled**2, 512),
            relu3=nn.ReLU(),
            fc2=nn.Linear(512, 10),
        )
    )
