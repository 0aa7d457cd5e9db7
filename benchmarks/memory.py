"""Measure the peak memory of every attack over that of PGD on the same batch, each in its own process (on Linux)."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import underfire as uf
from benchmarks.setting import cifar_resnet20
from benchmarks.timing import Row
from underfire.interpreters import cam

#: Options that shorten an attack without changing its peak memory.
SHORT: dict[str, dict[str, Any]] = {"adv2": {"warm_steps": 3}}
IMAGES = 256


def in_own_process(module: str, *words: str) -> float:
    """Run `python -m MODULE WORDS` and return the number of MB that it prints last."""
    done = subprocess.run([sys.executable, "-m", module, *words], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def highest(call: Callable[[], object]) -> float:
    """Return the peak memory of a call, in MB above the memory of the process before the call."""
    # return freed memory to the system and reset the recorded peak, so that only the call counts
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def _status(field: str) -> float:
    """Return a field of `/proc/self/status` in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def attacks() -> dict[str, Any]:
    """Measure every image attack of the catalogue that takes any classifier, on the same 256 images."""
    names = [card.name for card in uf.cards("attack") if not card.facts.models]
    peaks = {name: in_own_process("benchmarks.memory", name) for name in names}
    return {"images": IMAGES, "peak MB above start": peaks, "over PGD": {k: v / peaks["pgd"] for k, v in peaks.items()}}


def rows(found: dict[str, Any]) -> list[Row]:
    """Return a row with the largest values and the number of attacks below the limit."""
    shares = sorted(found["over PGD"].items(), key=lambda item: -item[1])
    largest = ", ".join(f"{name} {share:.2f}" for name, share in shares[:4])
    below = sum(share <= 3 for _, share in shares)
    what = f"peak memory over that of PGD, ResNet-20, {found['images']} images"
    return [(what, f"{below} of {len(shares)} attacks at most 3; largest: {largest}", "≤ 3")]


if __name__ == "__main__":
    card = uf.find("attack", sys.argv[1])
    network, images, labels = cifar_resnet20(IMAGES)
    options = dict(card.facts.quick)
    if isinstance(card.options.get("steps") and card.options["steps"].default, int):
        options = {"steps": 3} | options
    if "interpreter" in card.options:
        options |= {"interpreter": cam}
    options |= SHORT.get(card.name, {})

    def attack(n: int) -> None:
        card(network, images[:n], labels[:n], generator=torch.Generator().manual_seed(0), **options)

    attack(2)
    print(highest(lambda: attack(IMAGES)))
