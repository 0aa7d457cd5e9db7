"""Compare JSMA, changing at most 10 % of the entries on ResNet-20, with torchattacks: 256 images, and a few for it."""

from __future__ import annotations

import statistics
from typing import Any

from torch import Tensor

import underfire as uf
from benchmarks.setting import cifar_resnet20, declare_missing_operators
from benchmarks.timing import Row, clock, in_turn, one_unit, ratio, spread

SHARE = 0.1


def against_torchattacks(n: int = 256, peers: int = 2) -> dict[str, Any]:
    """Measure the time in units of the whole batch; the goal is the next class, the default of torchattacks.

    A unit is one forward and backward pass of all images. The time of torchattacks, which handles single images, is
    scaled from a few images to all.
    """
    declare_missing_operators()
    import torchattacks

    model, x, y = cifar_resnet20(n)
    goal = (y + 1) % 10

    unit = one_unit(model, x, y)
    found: dict[str, Tensor] = {}

    def run_ours() -> None:
        found["underfire"] = uf.attacks.jsma(model, x, y, goal=goal, eps=int(SHARE * x[0].numel()))

    seconds = in_turn({"unit": unit, "underfire": run_ours}, rounds=2)
    start = clock()
    found["torchattacks"] = torchattacks.JSMA(model, theta=1.0, gamma=SHARE)(x[:peers], y[:peers]).detach()
    seconds["torchattacks"] = [clock() - start]
    with model.counting() as count:
        run_ours()

    def evaluate(x_adv: Tensor, rows: slice) -> dict[str, float]:
        success = model.predict(x_adv).argmax(1) == goal[rows]
        entries = uf.measures.l0(x[rows], x_adv)
        return {
            "success": float(success.float().mean()),
            "most entries": float(entries.max()),
            "median entries of a success": float(entries[success].median()),
        }

    few = slice(0, peers)
    return {
        "images": n,
        "images of torchattacks": peers,
        "seconds": seconds,
        "units": {
            "underfire": ratio(seconds["underfire"], seconds["unit"]),
            "torchattacks": seconds["torchattacks"][0] * n / peers / statistics.median(seconds["unit"]),
        },
        "passes per image": {"forwards": count.forwards / n, "backwards": count.backwards / n},
        "underfire": evaluate(found["underfire"], slice(0, n)),
        "the same few images": {
            "underfire": evaluate(found["underfire"][few], few),
            "torchattacks": evaluate(found["torchattacks"], few),
        },
    }


def rows_against_torchattacks(found: dict[str, Any]) -> list[Row]:
    """Return rows with units, success and changed entries."""
    setting = f"JSMA, 10 % of the entries, goal the next class, ResNet-20, {found['images']} images"
    ours, few, passes = found["underfire"], found["the same few images"], found["passes per image"]
    units = found["units"]
    counts = f"{passes['forwards']:.1f} forwards, {passes['backwards']:.1f} backwards an image"

    def format_result(result: dict[str, float]) -> str:
        return f"success {result['success']:.3f}, median {result['median entries of a success']:.0f} entries"

    peer_images = f"{found['images of torchattacks']} images"
    return [
        (
            f"{setting}: forward+backward units",
            f"{spread(units['underfire'], 1)}; {counts}; {format_result(ours)}",
            "≤ 200",
        ),
        (
            f"{setting}, torchattacks, scaled from {peer_images}: forward+backward units",
            f"{units['torchattacks']:,.0f}; {format_result(few['torchattacks'])}",
            "the peer",
        ),
        (
            f"{setting}, on the {peer_images} of torchattacks: success",
            format_result(few["underfire"]),
            "success no lower",
        ),
    ]
