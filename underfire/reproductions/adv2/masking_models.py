"""Train RTS for the networks of photographs, on photographs that are not attacked."""

from __future__ import annotations

from dataclasses import replace

import torch

from underfire import models
from underfire.audit.labels import open_data
from underfire.interpreters import RTS
from underfire.reproductions.adv2.system import RTS as AIM
from underfire.reproductions.adv2.system import System
from underfire.reproductions.registry import Setting

#: Steps of the selector and of the decoder, and the images in a step of the decoder, by the scale of a run.
SIZES = {"quick": (10, 1, 2), "default": (4000, 400, 16), "full": (8500, 3000, 64)}


def with_rts(system: System, setting: Setting) -> System:
    """Return the system with RTS among its interpreters; the masking model is trained, or was in an earlier run."""
    path = setting.work / f"rts-{system.network}-{setting.scale}-{setting.seed}.safetensors"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        selector_steps, steps, batch_size = SIZES[setting.scale]
        n = system.n(setting)
        model = models.load(system.model(setting), device=setting.device)
        photographs = open_data(system.data.format(root=setting.root), model)
        RTS().fit(
            model,
            photographs.rest(n, setting.seed) if n < len(photographs) else photographs,
            selector_steps=selector_steps,
            steps=steps,
            batch_size=batch_size,
            generator=torch.Generator().manual_seed(setting.seed),
            progress=lambda done, total: setting.progress(done, total, f"train RTS for {system.network}"),
            checkpoint=path.with_suffix(".checkpoint"),
        ).save(path)
    return replace(system, aims={**system.aims, "RTS": replace(AIM, options={"weights": str(path)})})


def note(scale: str) -> str:
    """Return a sentence on how long RTS was trained."""
    selector_steps, steps, batch_size = SIZES[scale]
    return (
        f"RTS was trained by this command: its selector for {selector_steps} steps, its decoder for {steps} steps of "
        f"{batch_size} photographs, on those that are not attacked if there are any. Dabkowski and Gal trained it on "
        "the 1.2 million images of ImageNet."
    )
