"""Train what the defences of ResNet-20 on CIFAR-10 need, once for each size of a run; later experiments use the files.

HGD and ComDefend have networks of their own, and randomised smoothing needs a ResNet-20 that was trained with noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from underfire import data, models
from underfire.defenses import defend, train_comdefend, train_hgd
from underfire.learning import write_tensors
from underfire.measures.statistics import rate
from underfire.reproductions.registry import Outcome, Setting
from underfire.reproductions.transfer.grid import placed
from underfire.reproductions.transfer.page import show
from underfire.training import Plan, gaussian_noise

#: Images, passes over them, channels of HGD's finest level, and channels of ComDefend's first layer, by the size of a
#: run. The papers have 64 and 16 channels, and HGD 30 passes.
EFFORTS = {"quick": (40, 1.0, 2, 1), "default": (10_000, 3.0, 16, 4), "full": (50_000, 30.0, 64, 16)}


SIGMA = 0.12
"""Standard deviation of the noise of randomised smoothing: the smallest of Cohen et al. for CIFAR-10."""

_RATE = 0.01  # of the training with noise, which begins with the published weights


def train_missing(setting: Setting, network: str) -> None:
    """Train what is missing in the work folder.

    Args:
        setting: the setting of the experiment.
        network: the URI of the classifier that guides HGD, and whose weights the training with noise begins with.
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
    if not (path := weights(setting, "noisy")).is_file():
        plan = Plan(
            epochs=epochs,
            rate=_RATE,
            augment="shift_and_flip",
            channels_last=True,
            checkpoint=path.with_suffix(".training"),
            progress=lambda done, total: told(done, total, "ResNet-20 with noise"),
        )
        model = models.load(network, device=setting.device)
        made = gaussian_noise(model, images, sigma=SIGMA, plan=plan, generator=generator())
        write_tensors(path, made.module.state_dict(), {"sigma": str(SIGMA)})
        path.with_suffix(".training").unlink(missing_ok=True)


def weights(setting: Setting, name: str) -> Path:
    """Return the file of the weights of a trained network: `hgd`, `comdefend` or `noisy`, a ResNet-20."""
    return setting.work / f"{name}-cifar10-{setting.scale}.safetensors"


def accuracies(setting: Setting, network: str, victims: Mapping[str, Mapping[str, Any]], source: str) -> Outcome:
    """Train what is missing, and return the accuracy of each victim on clean test images.

    Args:
        setting: the setting of the experiment.
        network: the URI of the classifier that `train_missing` needs.
        victims: entries of a spec, with a model and defences, by label.
        source: the paper that the page names.
    """
    train_missing(setting, network)
    n = {"quick": 20, "default": 1000, "full": 10_000}[setting.scale]
    x, y = data.load(f"parquet:{setting.root}/cifar10-test.parquet", n=n, seed=setting.seed)[:]
    x, y = x.to(setting.device), y.to(setting.device)
    rows, results = list[list[str]](), dict[str, Any]()
    for label, victim in placed(dict(victims), setting).items():
        model = defend(models.load(victim["model"], device=setting.device), victim["defenses"])
        found = rate((model.predict(x).argmax(1) == y).cpu().numpy())
        rows.append([label, show(found)])
        results[label] = found
    images, epochs, width, narrow = EFFORTS[setting.scale]
    told = f"""HGD ({width} channels at its finest level) and ComDefend ({narrow} channels in its first layer) are
trained on {images} images for {epochs:g} passes; the papers have 64 and 16 channels, and HGD 30 passes over all images.
RS stands before a ResNet-20 whose training went on for as long with noise of {SIGMA} (Cohen et al. 2019). Accuracy on
{n} test images without an attack, in per cent, with its 95 % interval; a random defence is evaluated once."""
    return Outcome(
        title="What the trained input defences keep of the accuracy",
        source=source,
        spec={"victims": dict(victims), "effort": EFFORTS[setting.scale], "seed": setting.seed},
        columns=("defence before ResNet-20", "accuracy"),
        rows=rows,
        notes=[told],
        results=results,
    )
