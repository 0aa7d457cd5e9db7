"""What a run of the tests left out, why, and how to get it: one closing line, which fails the run where CI is set."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable

# What a test can lack, the words in the reason of its skip that say so, and how to get it.
NEEDS = {
    "Chromium": (r"Chromium|Playwright", "apt-get install chromium"),
    "Lightning Fabric": (r"Lightning Fabric", "pip install lightning-fabric"),
    "Ray": (r"\bRay\b|'ray\b", "pip install 'ray[client]'"),
    "real data": (r"real data", "set UNDERFIRE_DATA to its folder"),
}
# Other libraries that tests compare with and that CI does not install; `make bench` does.
_OTHERS = "adv_lib|captum|cv2|foolbox|lime|onnx|onnxruntime|pytorch_grad_cam|quantus|timm|torchvision|transformers"
PEERS = rf"could not import '({_OTHERS})\b"
# Skips that the facts of a card demand: they are the same on every machine.
BY_DESIGN = r"by its card"


def count_needs(reasons: Iterable[str]) -> Counter[str]:
    """Count the skipped tests for each thing they lack; a reason that is not known counts as itself."""
    lacking: Counter[str] = Counter()
    for reason in reasons:
        peer = re.search(PEERS, reason)
        known = [need for need, (words, _) in NEEDS.items() if re.search(words, reason)]
        if peer:
            lacking[peer[1]] += 1
        elif not re.search(BY_DESIGN, reason):
            lacking[known[0] if known else reason] += 1
    return lacking


def not_allowed(lacking: Counter[str]) -> list[str]:
    """Return what no test may lack on a continuous-integration machine."""
    return [need for need in lacking if not re.search(PEERS, f"could not import '{need}'")]


def closing_line(lacking: Counter[str]) -> str:
    """Return one line that says how many tests were left out and how to run them; "" if none was."""
    parts = [f"{lacking[need]} need {need} ({NEEDS[need][1]})" for need in NEEDS if need in lacking]
    peers = [need for need in lacking if need not in NEEDS and need not in not_allowed(lacking)]
    if peers:
        parts.append(f"{sum(lacking[p] for p in peers)} compare with {', '.join(sorted(peers))} (make bench)")
    parts += [f"{n} skipped: {need}" for need, n in lacking.items() if need not in NEEDS and need not in peers]
    return f"Tests left out: {'; '.join(parts)}" if parts else ""


def in_ci() -> bool:
    """Return whether this is a continuous-integration machine, where no test may be skipped for want of a tool."""
    return os.environ.get("CI", "").lower() in {"1", "true"}
