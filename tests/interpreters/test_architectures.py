"""Every interpreter on small members of many families of networks."""

import pytest
import torch

import underfire as uf
from tests.interpreters.architectures import ARCHITECTURES, SIDE, classifier
from tests.networks import rand, randn
from underfire.data import Dataset
from underfire.errors import ModelError, UnderfireError
from underfire.hooks import last_spatial_layer, spatial_layers
from underfire.records import Batch

pytestmark = pytest.mark.slow

# What makes a method short. Leave-one-out asks as occlusion does, and is left out.
OPTIONS = {
    "counterfactual": {"steps": 2},
    "integrated_gradients": {"steps": 2},
    "lime": {"superpixels": "grid", "segments": 4, "samples": 6},
    "mask": {"steps": 1, "cells": 4, "fill": "black"},
    "occlusion": {"patch": 16, "stride": 16},
    "rise": {"samples": 6, "cells": 3},
    "smooth_grad": {"samples": 2},
    "smooth_grad_cam_pp": {"samples": 2},
}
FITS = {"rts": {"selector_steps": 2, "steps": 1, "batch_size": 2, "width": 4}}
MOST_CHANNELS = 64  # for Score-CAM, which asks once for each
X, Y = rand(2, 3, SIDE, SIDE), torch.tensor([1, 3])


class Known:
    """Eight images of four classes."""

    labels = ("a", "b", "c", "d")

    def __len__(self):
        return 8

    def read(self, index):
        rows = list(index)
        return Batch(rand(8, 3, SIDE, SIDE, seed=5)[rows], torch.arange(8)[rows] % 4, tuple(map(str, rows)))


def state_of(model):
    return [
        (m.training, len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks), "forward" in vars(m))
        for m in model.modules()
    ] + [(p.requires_grad, p.grad is None) for p in model.parameters()]


def refused(card, error):
    """Return what is wrong with a refusal, or None if it is one line with a reason that the method may have."""
    if isinstance(error, ModelError):
        fits = card.name in ("score_cam", "mask") and "at most" in str(error)  # the answer hardly changes
    else:
        reasons = {"cam": "global average", "guided": "no rectifier", "deconvnet": "no rectifier"}
        reasons["attention"] = "needs a transformer"
        fits = any(card.name.startswith(name) and reason in str(error) for name, reason in reasons.items())
    return None if fits and "\n" not in str(error) else f"refused: {error}"


def wrong_of(card, model):
    """Return what is wrong with the explanations of one interpreter, in words, or None."""
    show = card.with_options(**OPTIONS.get(card.name, {}))
    if card.fitted:
        show.fit(model, Dataset("known", Known()), **FITS.get(card.name, {}))
    shown = show(model, X, Y)
    if card.facts.gives != "map":
        return None if len(getattr(shown, "x", shown)) == 2 else "not one for each image"
    # shape, and batch = singles
    if shown.dim() != 4 or shown.shape[:2] != (2, 1) or not bool(torch.isfinite(shown).all()):
        return f"shape {tuple(shown.shape)}, finite {bool(torch.isfinite(shown).all())}"
    if min(shown.shape[2:]) < 2 or shown.shape[2] != shown.shape[3]:
        return f"a grid of {tuple(shown.shape[2:])}"
    single = show(model, X[1:], Y[1:])
    if not torch.allclose(single, shown[1:], atol=1e-3 * float(shown.abs().max()) + 1e-7):
        return (
            f"a single image differs by {float((single - shown[1:]).abs().max()):.2g} of {float(shown.abs().max()):.2g}"
        )
    # differentiable as the card says
    point = X.clone().requires_grad_()
    again = show(model, point, Y)
    if again.requires_grad != card.facts.differentiable:
        return f"the map's graph: {again.requires_grad}"
    if again.requires_grad:
        (slope,) = torch.autograd.grad((randn(again.shape, seed=1) * again).sum(), point)
        if not bool(torch.isfinite(slope).all()):
            return "a slope that is not finite"
    return None


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_interpreter(name):
    model = classifier(name)
    before, wrong = state_of(model), {}
    channels = {layer: count for layer, count, _ in spatial_layers(model, X)}[last_spatial_layer(model, X)]
    for card in uf.cards("interpreter"):
        if card.facts.per_pixel or (card.name == "score_cam" and channels > MOST_CHANNELS):
            continue
        try:
            wrong[card.name] = wrong_of(card, model)
        except UnderfireError as error:
            wrong[card.name] = refused(card, error)
        except Exception as error:  # noqa: BLE001 (all are listed)
            wrong[card.name] = f"{type(error).__name__}: {str(error)[:200]}"
        if state_of(model) != before:
            wrong[card.name] = "the model is not as it was"
            before = state_of(model)
    assert {key: what for key, what in wrong.items() if what} == {}
