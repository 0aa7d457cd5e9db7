"""Trace one pass of a noise image through a model: the outputs of its layers, their order and their layouts."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from underfire.hooks.applied import APPLIED, AVERAGED, AppliedFunctions
from underfire.hooks.layouts import Trace
from underfire.hooks.networks import frozen, readable_layers, remove_at_exit, version
from underfire.hooks.reading import uncached
from underfire.model import unwatched

# Modules that resample feature maps to a fixed grid.
_RESAMPLE = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_RECENT = 8  # outputs that are kept
# Modules that have the channels first.
_FIRST = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm, nn.MaxPool2d, nn.AvgPool2d)


def trace_layers(model: nn.Module, x: Tensor) -> Trace:
    """Send one noise image of the size of `x` through the model and record the output of every layer.

    The image requires a gradient, which shows what depends on it; the model need not have one.

    Raises:
        Unsupported: the model is compiled, so that its layers cannot be read.
    """
    trace, constant = Trace((x.shape[2], x.shape[3])), set[str]()
    with ExitStack() as stack, torch.enable_grad(), frozen(model), unwatched():
        recorder = stack.enter_context(_Recorder(trace, constant))
        for name, module in readable_layers(model):
            hook = module.register_forward_hook(lambda *seen, name=name: recorder.note(name, *seen))
            stack.enter_context(remove_at_exit(hook))
        logits = uncached(model)(noise_image(x).requires_grad_() * 1)
    # a tensor that does not depend on the image, such as a table of positions, is not a feature map
    if logits.requires_grad:
        trace.order = [name for name in trace.order if name not in constant]
    trace.logits = logits.detach()
    return trace


class _Recorder(AppliedFunctions):
    """Record in a trace the outputs of layers, and the results of functions that are applied to these outputs."""

    def __init__(self, trace: Trace, constant: set[str]) -> None:
        super().__init__()
        self.trace, self.constant = trace, constant
        # The last output, its version, and its name if a function returned it. The tensor is kept alive, so that no
        # other tensor gets its memory.
        self.before: tuple[Tensor, int, str | None] | None = None

    def note(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Record the output of a layer; of a module that is used several times, the last counts."""
        trace = self.trace
        trace.count += 1
        if not isinstance(output, Tensor):
            trace.outputs[name] = trace.count, type(output).__name__
            return
        output = output.dequantize() if output.is_quantized else output
        trace.outputs[name] = trace.count, output.shape
        if inputs and isinstance(inputs[0], Tensor) and not isinstance(module, nn.Sequential):
            trace.entered[name] = inputs[0].shape
        _vote(trace, module, [t for t in (*inputs, output) if isinstance(t, Tensor)])
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)):
            flat = inputs[0].detach().flatten(1)
            if flat.shape[1] == module.weight.shape[1]:
                trace.heads.append((name, flat.clone(), output.detach().flatten(1).clone()))
        if not _has_space(output):
            return
        # a layer that returns the tensor of the layer inside it is not recorded again
        before = self.before
        same = before is not None and before[0].data_ptr() == output.data_ptr() and before[1] == version(output)
        if not same or before is None or before[0].shape != output.shape:
            self._record(name, output)
            if isinstance(module, _RESAMPLE):
                trace.resampled.add(name)
        elif before[2] is not None:  # the function was applied inside this layer
            self._forget(before[2])
            self._record(name, output)
        self.watch(name, output)
        self.before = output, version(output), None

    def applied(self, name: str, function: str, result: Tensor) -> Tensor:
        """Record the result of a function that the network applies to the output of a layer."""
        if result.dim() == 4 and _has_space(result):
            name = f"{name}{APPLIED}{function}"
            self.trace.count += 1
            self.trace.outputs[name] = self.trace.count, result.shape
            self._record(name, result)
            self.before = result, version(result), name
        return result

    def averaged(self, x: Tensor, dimensions: tuple[int, ...]) -> Tensor:
        """Record the tensor that the network averages over all places, and the dimension of its channels."""
        trace = self.trace
        trace.count += 1
        trace.outputs[AVERAGED], trace.averaged = (trace.count, x.shape), x.detach().clone()
        if x.dim() == 4:
            (trace.last if dimensions == (1, 2) else trace.first).add(x.shape)
        return x

    def _record(self, name: str, output: Tensor) -> None:
        trace = self.trace
        trace.order = [other for other in trace.order if other != name] + [name]
        # A later in-place operation may change the output, so it is copied.
        trace.recent = [*trace.recent[1 - _RECENT :], (name, output.detach().clone())]
        (self.constant.discard if output.requires_grad else self.constant.add)(name)

    def _forget(self, name: str) -> None:
        self.trace.order.remove(name)
        self.trace.recent = [entry for entry in self.trace.recent if entry[0] != name]
        del self.trace.outputs[name]


def _has_space(output: Tensor) -> bool:
    return output.dim() in (3, 4) and sum(side > 1 for side in output.shape[1:]) > 1


def noise_image(x: Tensor) -> Tensor:
    """Return one noise image of the size of `x`, always the same; a plain image could make different layers agree."""
    return torch.rand(1, *x.shape[1:], generator=torch.Generator().manual_seed(0), dtype=x.dtype).to(x.device)


def _vote(trace: Trace, module: nn.Module, tensors: list[Tensor]) -> None:
    """Record which shapes have channels first or last, or are tokens, by the module that reads or returns them."""
    for t in tensors:
        normalised = isinstance(module, nn.LayerNorm) and module.normalized_shape == t.shape[-1:]
        if t.dim() == 4 and isinstance(module, _FIRST):
            trace.first.add(t.shape)
        elif t.dim() == 4 and (isinstance(module, nn.Linear) or (normalised and t.shape[1] != t.shape[3])):
            trace.last.add(t.shape)
        elif t.dim() == 3 and (isinstance(module, nn.Linear) or normalised):
            trace.widths.add(t.shape[2])
