"""Train the network of the package: `python -m tools.train_cluttered_digits`.

The training takes five epochs over the training digits of `cluttered-digits:`, with new places and pieces in every
epoch. It uses no test digit.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from underfire import data, models
from underfire.data.cluttered import ClutteredDigits
from underfire.model import Classifier

NAME = "cluttered_digits"
BATCH_SIZE = 128
TOP_RATE = 4e-3  # the largest learning rate


def train(*, seed: int = 0, epochs: int = 5, device: str = "cpu") -> Classifier:
    """Return `zoo:cluttered_digits`, trained by AdamW with a learning rate that rises to 0.004 and falls to zero.

    Args:
        seed: the seed of the initial weights, the order and the images; it determines the network on one machine.
        epochs: passes over the 23,960 training digits.
        device: the device to train on.
    """
    entry = models.zoo.ZOO[NAME]
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = entry.build()
    model = Classifier(network, mean=entry.mean, std=entry.std, labels=entry.labels).to(device).train()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = len(ClutteredDigits("train")) // BATCH_SIZE
    optimizer = torch.optim.AdamW(model.parameters(), lr=TOP_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, TOP_RATE, total_steps=epochs * steps, pct_start=0.2)
    for epoch in range(epochs):
        source = ClutteredDigits("train", seed=1000 * seed + epoch)
        order = torch.randperm(len(source), generator=generator)
        for step in track(range(steps), f"epoch {epoch + 1} of {epochs}", console=Console(stderr=True)):
            batch = source.read(order[step * BATCH_SIZE : (step + 1) * BATCH_SIZE].tolist())
            loss = F.cross_entropy(model(batch.x.to(device)), batch.y.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.to("cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]


def accuracy(model: Classifier) -> float:
    """Return the accuracy on the 2,000 test images."""
    batch = data.load("cluttered-digits:test")[:]
    return float((model.predict(batch.x).argmax(1) == batch.y).float().mean())


def save(network: nn.Module, path: Path) -> None:
    """Write the weights as safetensors, without the counters of batch normalisation."""
    from safetensors.torch import save_file

    state: dict[str, Tensor] = {
        key: value.contiguous()
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)


def main() -> None:
    """Train the network, write its weights, and print its test accuracy."""
    parser = argparse.ArgumentParser(description="Train the network that comes with the package.")
    parser.add_argument("--out", type=Path, default=models.zoo.EMBEDDED / f"{NAME}.safetensors", help="file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    model = train(seed=options.seed, epochs=options.epochs, device=options.device)
    save(model.module, options.out)
    print(f"{accuracy(model):.4f} of the test images are classified correctly; weights written to {options.out}")


if __name__ == "__main__":
    main()
