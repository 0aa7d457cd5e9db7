"""Train HGD and ComDefend for ResNet-20 on CIFAR-10, once for each size of a run; later experiments use the files."""

from __future__ import annotations

from pathlib import Path

import torch

from underfire import data, models
from underfire.defenses import train_comdefend, train_hgd
from underfire.reproductions.registry import Setting

#: Images, passes over them, channels of HGD's finest level, and channels of ComDefend's first layer, by the size of a
#: run. The papers have 64 and 16 channels, and HGD 30 passes.
EFFORTS = {"default": (10_000, 3.0, 16, 4), "full": (50_000, 30.0, 64, 16)}


def train_missing(setting: Setting, network: str) -> None:
    """Train what is missing in the work folder.

    Args:
        setting: the setting of the experiment.
        network: the URI of the classifier that guides HGD.
    """
    n, epochs, width, narrow = EFFORTS[setting.scale]
    images = data.load(f"parquet:{setting.root}/cifar10-train.parquet", n=n, seed=setting.seed)

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(setting.seed)

    def told(done: int, total: int, name: str) -> None:
        setting.progress(done, total, f"training {name}")

    setting.work.mkdir(parents=True, exist_ok=True)
    if not (path := weights(setting, "hgd")).is_file():
        model = models.load(network, device=setting.device)
        denoiser = train_hgd(
            model,
            images,
            epochs=epochs,
            width=width,
            generator=generator(),
            progress=lambda done, total: told(done, total, "HGD"),
            checkpoint=path.with_suffix(".training"),
        )
        denoiser.save(str(path))
    if not (path := weights(setting, "comdefend")).is_file():
        networks = train_comdefend(
            images,
            epochs=epochs,
            width=narrow,
            device=setting.device,
            generator=generator(),
            progress=lambda done, total: told(done, total, "ComDefend"),
            checkpoint=path.with_suffix(".training"),
        )
        networks.save(str(path))


def weights(setting: Setting, name: str) -> Path:
    """Return the file of the weights of a trained defence."""
    return setting.work / f"{name}-cifar10-{setting.scale}.safetensors"
