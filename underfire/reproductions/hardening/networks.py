"""Train networks by the methods of `underfire.training`, each of them once; their weights are in the work folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Generator, Tensor, nn

from underfire import data, models
from underfire.learning import initialised
from underfire.model import Classifier
from underfire.records import Batch
from underfire.reproductions.detection.stored import Store
from underfire.reproductions.registry import Setting
from underfire.training import Plan

Build = Callable[[], nn.Module]
"""Returns a network with random weights."""
Method = Callable[..., Classifier]
"""A method of training, `(model, data, *, plan, generator, **options) -> classifier`."""


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        model: the network, in evaluation mode.
        seconds: how long its training took; of an interrupted one, the last part.
    """

    model: Classifier
    seconds: float


@dataclass(frozen=True)
class Workshop:
    """Training images, and the folder of the networks that were trained on them.

    Attributes:
        setting: the setting of the experiment.
        images: the training images and their labels.
        described: what determines these images, in words.
        mean, std: the normalisation of the images by the networks, for each channel.
    """

    setting: Setting
    images: tuple[Tensor, Tensor]
    described: str
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @classmethod
    def of(cls, setting: Setting, uri: str, n: int) -> Workshop:
        """Return the workshop with the first `n` images of a data set; `{root}` is the folder of real data."""
        batch = data.load(uri.format(root=setting.root))[:n]
        return cls(setting, (batch.x, batch.y), f"the first {n} of {uri}")

    def network(self, name: str, build: Build, method: Method, plan: Plan, **options: Any) -> Classifier:
        """Return a trained network; see `train`."""
        return self.train(name, build, method, plan, **options).model

    def train(
        self,
        name: str,
        build: Build,
        method: Method,
        plan: Plan,
        *,
        start: Classifier | None = None,
        **options: Any,
    ) -> Trained:
        """Return a trained network and the time of its training; train it if the work folder has no file of it.

        A training that was interrupted continues at its last checkpoint. Experiments that train the same network find
        the same file.

        Args:
            name: a part of the name of its folder.
            build: returns the network with random weights.
            method: the method of training.
            plan: its plan.
            start: a network whose weights it begins with; None begins with those of the seed.
            options: options of the method; networks among them are told apart by their weights.
        """
        setting = self.setting
        first = start or self._new(build)
        facts = {
            "data": self.described,
            "start": models.fingerprint(first),
            "method": method.__name__,
            "options": {key: _described(value) for key, value in options.items()},
            "plan": repr(plan),
        }
        store = Store.of(setting, f"trained-{name}", facts)
        checkpoint = store.folder / "training"

        def compute() -> tuple[Mapping[str, Tensor], float]:
            began = time.perf_counter()
            told = replace(
                plan,
                checkpoint=checkpoint,
                every=200,
                progress=lambda done, total: setting.progress(done, total, f"training {name}"),
            )
            generator = Generator().manual_seed(setting.seed)
            made = method(first.to(setting.device), self.images, plan=told, generator=generator, **options)
            return made.module.state_dict(), time.perf_counter() - began

        weights, seconds = store.record("weights", compute)
        checkpoint.unlink(missing_ok=True)
        found = self._new(build)
        found.module.load_state_dict(weights)
        return Trained(found.to(setting.device).eval(), seconds)

    def _new(self, build: Build) -> Classifier:
        """Return a network with the first weights of the seed."""
        return Classifier(initialised(build, self.setting.seed), mean=self.mean, std=self.std)


def first_images(setting: Setting, uri: str, n: int) -> Batch:
    """Return the first `n` images of a data set, on the device of the setting."""
    return data.load(uri.format(root=setting.root))[:n].to(setting.device)


def multilayer(inputs: int, width: int, hidden: int = 4, dropout: float = 0.0) -> nn.Sequential:
    """Return a fully connected network: `hidden` layers of `width` units with ReLU, and ten classes."""
    layers: list[nn.Module] = [nn.Flatten()]
    for size in (inputs, *[width] * (hidden - 1)):
        layers += [nn.Linear(size, width), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def _described(value: Any) -> str:
    """Return a text that tells values apart."""
    if isinstance(value, nn.Module):
        return models.fingerprint(value)
    if isinstance(value, (list, tuple)):
        return repr([_described(one) for one in value])
    return repr(value)
