"""Open ONNX files: as a torch module where they can be converted, else in onnxruntime, without gradients.

The converted module is used only if it returns on random images what onnxruntime returns for the file.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from underfire.errors import ModelError, ModelNotice
from underfire.extras import declare_missing_operators, import_extra
from underfire.models import onnx_graphs
from underfire.models.hubs import LoadedModel, Options, quietly
from underfire.models.programs import FixedBatch, in_parts

SIZES = (224, 64, 32)
"""Sizes of the random images on which a conversion is checked, where the file states none."""


def onnx(path: str, options: Options) -> LoadedModel:
    """Return the network of an ONNX file without normalisation; `load` takes `mean` and `std` if it needs them.

    A network that takes images `[B, H, W, C]`, as other frameworks write it, gets them with the channels last.

    Raises:
        ModelError: there is no such file, it is damaged, or it does not take one batch of images.
        MissingExtra: onnx, onnx2torch or onnxruntime is not installed.
    """
    if not Path(path).is_file():
        raise ModelError(f"there is no file {path!r}, given as onnx:FILE")
    declare_missing_operators()
    warnings.filterwarnings("ignore", module=r"onnx2torch\.")  # its slices are of a form that torch warns about
    package = import_extra("onnx")
    runtime, converter = import_extra("onnxruntime"), import_extra("onnx2torch")
    graph = quietly(f"onnx:{path}", lambda: package.load(path))
    original = quietly(f"onnx:{path}", lambda: OnnxRuntime(path, runtime))
    last = onnx_graphs.takes_channels_last(graph)
    original.channels_last = _are_last(original.shape) if last is None else last
    try:
        module = quietly(f"onnx:{path}", lambda: converter.convert(onnx_graphs.rewritten(graph)).eval())
        return LoadedModel(_channels_first(_checked(module, original), original))
    except ModelError as error:
        reason = str(error).partition("cannot be loaded: ")[2] or str(error)
    original.notice = f"onnx:{path} runs in onnxruntime as a black box, without gradients: {reason}"
    warnings.warn(original.notice, ModelNotice, stacklevel=2)
    return LoadedModel(_channels_first(original, original))


class OnnxRuntime(nn.Module):
    """A network that onnxruntime computes on the CPU; its results have no gradient.

    Args:
        path: the ONNX file.
        runtime: the package onnxruntime.

    Attributes:
        shape: the shape of a batch; None where any number is taken.
        channels_last: whether it takes images `[B, H, W, C]`.
        notice: why the network is not a torch module.

    Raises:
        ModelError: the network does not take one batch of floating-point images.
    """

    digest: Tensor
    shape: tuple[int | None, ...]

    def __init__(self, path: str, runtime: Any) -> None:
        super().__init__()
        self.path, self.notice, self.channels_last, self._runtime = path, "", False, runtime
        content = hashlib.sha256(Path(path).read_bytes()).digest()
        self.register_buffer("digest", torch.tensor(list(content), dtype=torch.uint8))  # tells files apart
        self._session = self._open()
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise ModelError(f"it must have one input, images; it has {', '.join(i.name for i in inputs) or 'none'}")
        self._name, kind = inputs[0].name, inputs[0].type
        types = {"tensor(float)": torch.float32, "tensor(double)": torch.float64, "tensor(float16)": torch.float16}
        if kind not in types:
            raise ModelError(f"its input must be of floating-point numbers, it is {kind}")
        self._dtype = types[kind]
        shape = inputs[0].shape or [None]
        self.shape = tuple(size if isinstance(size, int) and size > 0 else None for size in shape)

    def forward(self, x: Tensor) -> Any:
        """Return the outputs for images `[B, C, H, W]`: a tensor, or a tuple of them if there are several."""
        size = self.shape[0]
        return self._run(x) if size is None or size == len(x) else in_parts(self._run, x, size)

    def _run(self, x: Tensor) -> Any:
        try:
            found = self._session.run(None, {self._name: x.detach().to("cpu", self._dtype).contiguous().numpy()})
        except Exception as error:  # onnxruntime has a tree of errors of its own
            raise ModelError(f"onnx:{self.path}: {' '.join(str(error).split())[:300]}") from error
        outputs = tuple(torch.from_numpy(value.copy()).to(x.device, x.dtype) for value in found)
        return outputs[0] if len(outputs) == 1 else outputs

    def _open(self) -> Any:
        options = self._runtime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        return self._runtime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_session": None, "_runtime": self._runtime.__name__}  # neither can be pickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _runtime=import_extra(state["_runtime"]))
        self._session = self._open()


def _checked(module: nn.Module, original: OnnxRuntime) -> nn.Module:
    """Return a converted network that takes any batch, after a comparison with the original on two random images.

    Raises:
        ModelError: it returns other values, or has no gradient.
    """
    generator = torch.Generator().manual_seed(0)
    for shape in _shapes(original):
        x = torch.rand(2, *shape, generator=generator, dtype=torch.float32)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                wanted = original(x)
        except ModelError:  # not the size of its images
            continue
        x.requires_grad_()
        fixed = original.shape[0]
        for choice in [module] if fixed is None else [module, FixedBatch(module, fixed)]:
            try:
                found = quietly("the conversion", partial(choice, x))
            except ModelError:  # not another size of batch
                continue
            if _agree(found, wanted):
                if not any(value.requires_grad for value in _tuple(found)):
                    raise ModelError("the network has no gradient with respect to its input")
                return choice
        raise ModelError("its conversion to torch returns other values")
    return module


def _shapes(original: OnnxRuntime) -> Iterator[tuple[int, ...]]:
    """Yield shapes of images that may fit a network, without the dimension of the batch."""
    channels = 2 if original.channels_last else 0
    for size in SIZES:
        yield tuple(known or (3 if i == channels else size) for i, known in enumerate(original.shape[1:]))


def _are_last(shape: tuple[int | None, ...]) -> bool:
    """Return whether a shape of inputs looks like `[B, H, W, C]`, with one or three channels.

    It decides only where the network does not (see `onnx_graphs.takes_channels_last`).

    >>> _are_last((1, 224, 224, 3)), _are_last((None, None, None, 3)), _are_last((None, 3, 32, 32))
    (True, True, False)
    """
    return len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3)


class ChannelsLast(nn.Module):
    """A network of images `[B, H, W, C]` that takes images `[B, C, H, W]`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        """Return what the network returns for the images with their channels last."""
        return self.network(x.permute(0, 2, 3, 1))


def _channels_first(network: nn.Module, original: OnnxRuntime) -> nn.Module:
    """Return a network that takes images with their channels first."""
    return ChannelsLast(network) if original.channels_last else network


def _tuple(outputs: Any) -> tuple[Tensor, ...]:
    return tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)


def _agree(found: Any, wanted: Any) -> bool:
    """Return whether outputs are equal up to rounding."""
    pairs = list(zip(_tuple(found), _tuple(wanted), strict=False))
    return len(_tuple(found)) == len(_tuple(wanted)) and all(
        a.shape == b.shape and torch.allclose(a.to(b.dtype), b, rtol=1e-3, atol=1e-4 * max(1.0, float(b.abs().max())))
        for a, b in pairs
    )
