"""Interpreters, one published method per file or folder: `name(model, x, y, *, ...) -> map [B, 1, h, w]`.

A map is float and not normalised; `y` is the class that it explains, int64 `[B]`. If the card says that a map is
differentiable, it carries a graph to `x` if `x` requires a gradient and gradients are enabled. A method that learns
from data is a class, and is exported under its name in the catalogue too.
"""

from underfire.interpreters.attention_rollout import attention_rollout
from underfire.interpreters.cam import cam
from underfire.interpreters.counterfactual import counterfactual
from underfire.interpreters.deconvnet import deconvnet
from underfire.interpreters.deep_lift import deep_lift
from underfire.interpreters.full_grad import full_grad
from underfire.interpreters.grad_cam import grad_cam
from underfire.interpreters.grad_cam_pp import grad_cam_pp
from underfire.interpreters.gradient import gradient
from underfire.interpreters.gradient_input import gradient_input
from underfire.interpreters.guided_backprop import guided_backprop
from underfire.interpreters.guided_grad_cam import guided_grad_cam
from underfire.interpreters.hires_cam import hires_cam
from underfire.interpreters.integrated_gradients import integrated_gradients
from underfire.interpreters.layer_cam import layer_cam
from underfire.interpreters.leave_one_out import leave_one_out
from underfire.interpreters.lime import LimeFit, lime, lime_fit, lime_stability
from underfire.interpreters.lrp import lrp
from underfire.interpreters.mask import MaskGame, mask, mask_game, mask_step
from underfire.interpreters.nearest_neighbours import NearestNeighbours
from underfire.interpreters.occlusion import occlusion
from underfire.interpreters.prototypes import Prototypes
from underfire.interpreters.rise import rise
from underfire.interpreters.rts import RTS
from underfire.interpreters.score_cam import score_cam
from underfire.interpreters.smooth_grad import smooth_grad
from underfire.interpreters.smooth_grad_cam_pp import smooth_grad_cam_pp
from underfire.interpreters.surrogate import Surrogate

nearest_neighbours, prototypes, rts, surrogate = NearestNeighbours, Prototypes, RTS, Surrogate

__all__ = [
    "RTS",
    "LimeFit",
    "MaskGame",
    "NearestNeighbours",
    "Prototypes",
    "Surrogate",
    "attention_rollout",
    "cam",
    "counterfactual",
    "deconvnet",
    "deep_lift",
    "full_grad",
    "grad_cam",
    "grad_cam_pp",
    "gradient",
    "gradient_input",
    "guided_backprop",
    "guided_grad_cam",
    "hires_cam",
    "integrated_gradients",
    "layer_cam",
    "leave_one_out",
    "lime",
    "lime_fit",
    "lime_stability",
    "lrp",
    "mask",
    "mask_game",
    "mask_step",
    "nearest_neighbours",
    "occlusion",
    "prototypes",
    "rise",
    "rts",
    "score_cam",
    "smooth_grad",
    "smooth_grad_cam_pp",
    "surrogate",
]
