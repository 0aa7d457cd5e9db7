"""Projection onto a hyperplane inside the box, in each norm: FAB's estimate of the nearest boundary point."""

from __future__ import annotations

import torch
from torch import Tensor

from underfire.ascent.threats import Threat
from underfire.gradients.smoothing import norms
from underfire.validate import per_sample


def onto_plane(x: Tensor, w: Tensor, lack: Tensor, threat: Threat) -> Tensor:
    """Return the shortest `d` with `<w, d> = lack` and `x + d` in the box, shaped like `x`.

    If no point of the box is on the plane, `x + d` is the corner of the box that is nearest to the plane.

    Args:
        x: points of the box, `[B, ...]`.
        w: normal vectors of the planes, shaped like `x`.
        lack: amount by which `<w, x>` must grow, positive or negative, `[B]`.
        threat: the threat whose box and norm (`"linf"`, `"l2"` or `"l1"`) are used.

    Source: Croce and Hein, Minimally Distorted Adversarial Examples with a Fast Adaptive Boundary Attack, ICML 2020,
        section 2.2.
    """
    lack = per_sample(lack, x)
    largest = norms(w, float("inf")).clamp_min(torch.finfo(w.dtype).tiny)
    w, lack = w / largest * lack.sign(), lack.abs() / largest  # squares of a small gradient would vanish
    down, up = threat.room(x)
    gain, room = w.abs(), torch.where(w > 0, up, -down)
    spend = _largest_first if threat.norm == "l1" else _evenly
    return w.sign() * spend(gain, room, lack, torch.ones_like(gain) if threat.norm == "linf" else gain)


def _evenly(gain: Tensor, room: Tensor, lack: Tensor, speed: Tensor) -> Tensor:
    """Return how far each entry goes in L-infinity or L2: `min(t * speed, room)`, with the `t` that makes up the lack.

    What is gained is a concave function of `t`, so that Newton's method, started at zero, never passes the solution. It
    ends when no further entry has used up its room.
    """
    t, free = torch.zeros_like(lack), room > 0
    for _ in range(100):
        slope = (gain * speed * free).flatten(1).sum(1).reshape_as(t)
        full = (gain * room * ~free).flatten(1).sum(1).reshape_as(t)
        t = torch.where(slope > 0, ((lack - full) / slope.clamp_min(torch.finfo(t.dtype).tiny)).maximum(t), t)
        fits = free & (t * speed < room)
        if bool((fits == free).all()):
            break
        free = fits
    return torch.where(free, t * speed, room) * (gain > 0)


def _largest_first(gain: Tensor, room: Tensor, lack: Tensor, speed: Tensor) -> Tensor:
    """Return how far each entry goes in L1: entries are filled in order of their gain, the last one in part."""
    order = gain.flatten(1).argsort(dim=1, descending=True)
    gains, rooms = gain.flatten(1).gather(1, order), room.flatten(1).gather(1, order)
    gained = (gains * rooms).cumsum(1)
    missing = lack.flatten(1) - (gained - gains * rooms)
    used = (missing / gains.clamp_min(torch.finfo(gain.dtype).tiny)).clamp_min(0).minimum(rooms) * (gains > 0)
    return torch.zeros_like(used).scatter_(1, order, used).view_as(gain)
