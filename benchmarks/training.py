"""Compare an epoch of robust training with the passes that it needs, and with ART: `python -m benchmarks training`.

The floor of a method has its passes alone: those of the inner attack, forward and backward to the image with frozen
weights, and those of the loss, forward and backward to the weights. ART is optional.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import underfire as uf
from benchmarks.setting import cifar_resnet20
from benchmarks.timing import Row, in_turn, one_unit, ratio, spread
from underfire.training import Plan

EPS, SIZE, BATCH, BATCHES = 8 / 255, 2 / 255, 64, 2
PLAN = Plan(epochs=1, batch_size=BATCH, rate=0.01, schedule="constant", weight_decay=0.0)


def floor(model: nn.Module, x: Tensor, y: Tensor, attack: int, loss: int = 1, forwards: int = 0) -> Callable[[], None]:
    """Return a function that makes the passes of an epoch alone.

    Args:
        attack: passes for each batch that are differentiated by the images, with frozen weights.
        loss: those that are differentiated by the weights.
        forwards: those without a backward pass.
    """
    network = deepcopy(model).train()
    sgd = torch.optim.SGD(network.parameters(), 0.01, 0.9, nesterov=True)

    def run() -> None:
        for images, labels in zip(x.split(BATCH), y.split(BATCH), strict=True):
            with torch.no_grad():
                for _ in range(forwards):
                    network(images)
            unit = one_unit(network.eval(), images, labels)
            for _ in range(attack):
                unit()
            network.train()
            sgd.zero_grad()
            for _ in range(loss):
                F.cross_entropy(network(images), labels).backward()
            sgd.step()

    return run


def measure(rounds: int = 3) -> dict[str, Any]:
    """Measure one epoch of each method, and its floor."""
    model, x, y = cifar_resnet20(BATCH * BATCHES)
    cam: dict[str, Any] = {"eps": EPS, "steps": 10, "ramp": (0.0, 0.0), "plan": PLAN}
    contestants: dict[str, Callable[[], object]] = {
        "PGD-7": lambda: uf.training.adversarial(model, (x, y), eps=EPS, step_size=SIZE, plan=PLAN),
        "PGD-7, floor": floor(model, x, y, 7),
        "TRADES": lambda: uf.training.trades(model, (x, y), eps=EPS, steps=10, plan=PLAN),
        "TRADES, floor": floor(model, x, y, 10, 2, 1),
        "Int": lambda: uf.training.interpretability_aware(model, (x, y), **cam),
        "Int, floor": floor(model, x, y, 10, 2, 1),
    }
    peer = art_trainer(model, x, y)
    if peer is not None:
        contestants["PGD-7, ART"] = peer
    seconds = in_turn(contestants, rounds=rounds)
    found = {f"{name} / floor": ratio(seconds[name], seconds[f"{name}, floor"]) for name in ("PGD-7", "TRADES", "Int")}
    if peer is not None:
        found["ART / PGD-7"] = ratio(seconds["PGD-7, ART"], seconds["PGD-7"])
    return {"images": len(x), "seconds": seconds, "ratios": found}


def art_trainer(model: uf.Classifier, x: Tensor, y: Tensor) -> Callable[[], object] | None:
    """Return one epoch of ART's adversarial trainer with the same attack on the same network; None without ART."""
    try:
        from art.attacks.evasion import ProjectedGradientDescent
        from art.defences.trainer import AdversarialTrainer
        from art.estimators.classification import PyTorchClassifier
    except ImportError:
        return None
    network = deepcopy(model).train()
    sgd = torch.optim.SGD(network.parameters(), 0.01, 0.9, nesterov=True)
    classes = model.predict(x[:1]).shape[1]
    estimator = PyTorchClassifier(
        network, nn.CrossEntropyLoss(), tuple(x.shape[1:]), classes, optimizer=sgd, clip_values=(0.0, 1.0)
    )
    attack = ProjectedGradientDescent(
        estimator, eps=EPS, eps_step=SIZE, max_iter=7, num_random_init=1, batch_size=BATCH, verbose=False
    )
    trainer = AdversarialTrainer(estimator, attack, ratio=1.0)
    images, labels = x.numpy(), F.one_hot(y, classes).numpy()
    return lambda: trainer.fit(images, labels, batch_size=BATCH, nb_epochs=1)


def rows(result: dict[str, Any]) -> list[Row]:
    """Return the rows of the table."""
    wanted = {"PGD-7 / floor": "at most 1.08", "TRADES / floor": "at most 1.1", "Int / floor": "at most 1.1"}
    wanted["ART / PGD-7"] = "at least 1.5"
    return [(f"time of an epoch, {name}", spread(value), wanted[name]) for name, value in result["ratios"].items()]
