"""ONNX files: newer operators, constants that are nodes, fixed batches, and what no torch module can compute."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.networks import rand
from underfire import models
from underfire.errors import MissingExtra, ModelError, ModelNotice
from underfire.extras import declare_missing_operators
from underfire.models import onnx_files

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
declare_missing_operators()
pytest.importorskip("onnx2torch")

helper, numbers = onnx.helper, np.random.default_rng(0)
WEIGHT = numbers.normal(size=(4, 3, 3, 3)).astype("float32")
HEAD = numbers.normal(size=(5, 4)).astype("float32")


def save(path: Path, nodes: list[Any], opset: int, shape: tuple[Any, ...] = ("n", 3, 8, 8), **kept: np.ndarray) -> str:
    """Write a network from `x` to `y`; return its path."""
    tensors = {"weight": WEIGHT, "head": HEAD, **kept}
    used = {name for node in nodes for name in node.input} - {name for node in nodes for name in node.output}
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in tensors.items() if name in used],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), str(path))
    return str(path)


def constant(name: str, value: Any, kind: str = "int64") -> Any:
    return helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(np.array(value, kind)))


def wanted(path: str, x: Tensor) -> Tensor:
    session = runtime.InferenceSession(path)
    return torch.cat([torch.from_numpy(session.run(None, {"x": one.numpy()})[0]) for one in x.split(1)])


CONV = helper.make_node("Conv", ["x", "weight"], ["a"], pads=[1, 1, 1, 1])
MEAN = [constant("axes", [2, 3]), helper.make_node("ReduceMean", ["b", "axes"], ["c"], keepdims=1)]
FLAT = [constant("shape", [-1, 4]), helper.make_node("Reshape", ["c", "shape"], ["d"], allowzero=1)]
GEMM = helper.make_node("Gemm", ["d", "head"], ["y"], transB=1)
TAIL = [*MEAN, *FLAT, GEMM]
TAIL_RELU = [helper.make_node("Relu", ["a"], ["b"]), *TAIL]
GELU = [CONV, helper.make_node("Gelu", ["a"], ["b"]), *TAIL]
SPLIT = [
    CONV,
    helper.make_node("Split", ["a"], ["a1", "a2"], axis=1, num_outputs=2),
    helper.make_node("Concat", ["a2", "a1"], ["a3"], axis=1),
    constant("pads", [0, 0, 1, 0, 0, 0, 0, 1]),
    helper.make_node("Pad", ["a3", "pads"], ["b"]),
    *TAIL,
]
# As exporters of other frameworks write it: weights and shapes are nodes, and some are computed from others.
NODES = [
    constant("weight0", WEIGHT, "float32"),
    helper.make_node("Identity", ["weight0"], ["weight"]),
    CONV,
    helper.make_node("Relu", ["a"], ["b"]),
    helper.make_node("GlobalAveragePool", ["b"], ["c"]),
    constant("minus", [-1]),
    constant("four", 4),
    constant("zero", [0]),
    helper.make_node("Unsqueeze", ["four", "zero"], ["four1"]),
    helper.make_node("Concat", ["minus", "four1"], ["shape"], axis=0),
    helper.make_node("Reshape", ["c", "shape"], ["d"]),
    GEMM,
]


MAXIMUM = [CONV, helper.make_node("GlobalMaxPool", ["a"], ["c"]), helper.make_node("Flatten", ["c"], ["d"]), GEMM]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("nodes", "opset"), [(GELU, 20), (SPLIT, 18), (SPLIT, 19), (NODES, 13), (NODES, 20), (MAXIMUM, 18), (MAXIMUM, 11)]
)
def test_what_is_converted_has_a_gradient(nodes: list[Any], opset: int, tmp_path: Path) -> None:
    path = save(tmp_path / "a.onnx", nodes, opset)
    for uri in (f"onnx:{path}?mean=0.5&std=0.25", f"{path}?mean=0.5&std=0.25"):
        model = models.load(uri)
    x = rand(3, 3, 8, 8, seed=1).requires_grad_()
    found = model(x)
    assert torch.allclose(found, wanted(path, (x.detach() - 0.5) / 0.25), atol=1e-4)
    (gradient,) = torch.autograd.grad(found[:, 0].sum(), x)
    step = torch.zeros_like(x)
    step[:, 1, 3, 4] = 1e-3
    with torch.no_grad():
        slope = (model(x + step) - model(x - step))[:, 0] / 2e-3
    assert torch.allclose(gradient[:, 1, 3, 4], slope, atol=2e-2)


def test_a_network_for_batches_of_one(tmp_path: Path) -> None:
    one = [CONV, helper.make_node("Relu", ["a"], ["b"]), *MEAN, constant("shape", [1, 4]), *FLAT[1:], GEMM]
    path = save(tmp_path / "a.onnx", one, 18, (1, 3, 8, 8))
    model, x = models.load(f"onnx:{path}"), rand(3, 3, 8, 8, seed=1).requires_grad_()
    assert torch.allclose(model(x), wanted(path, x.detach()), atol=1e-5)
    assert bool((torch.autograd.grad(model(x).sum(), x)[0] != 0).any())


POWERS = [CONV, helper.make_node("GlobalLpPool", ["a"], ["c"]), *FLAT, GEMM]
LEVELS = [constant("scale", 0.1, "float32"), constant("middle", 0, "int8")]
INT8 = [
    *LEVELS,
    helper.make_node("QuantizeLinear", ["x", "scale", "middle"], ["q"]),
    helper.make_node("DequantizeLinear", ["q", "scale", "middle"], ["x1"]),
    helper.make_node("Conv", ["x1", "weight"], ["b"]),
    *TAIL,
]


@pytest.mark.parametrize(("nodes", "reason"), [(POWERS, "GlobalLpPool"), (INT8, "QuantizeLinear")])
@pytest.mark.parametrize("batch", ["n", 2])
def test_what_is_not_converted_is_a_black_box(nodes: list[Any], reason: str, batch: Any, tmp_path: Path) -> None:
    path = save(tmp_path / "a.onnx", nodes, 18, (batch, 3, 8, 8))
    with pytest.warns(ModelNotice, match=f"black box, without gradients: .*{reason}"):
        model = models.load(f"onnx:{path}?mean=0.5&std=0.25")
    assert isinstance(model.module, onnx_files.OnnxRuntime) and reason in model.module.notice
    x = rand(3, 3, 8, 8, seed=1)
    inside = (torch.cat([x, x[-1:]]) - 0.5) / 0.25
    session = runtime.InferenceSession(path)
    answers = torch.cat([torch.from_numpy(session.run(None, {"x": two.numpy()})[0]) for two in inside.split(2)])
    assert torch.allclose(model.predict(x), answers[:3], atol=1e-5)
    assert model(x.double().requires_grad_()).dtype == torch.float64 and not model(x.requires_grad_()).requires_grad
    assert torch.equal(copy.deepcopy(model).predict(x), model.predict(x))
    with pytest.raises(ModelError, match="a.onnx"):
        model.predict(rand(2, 3, 9, 9))


def test_a_conversion_that_returns_other_values_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.onnx", GELU, 20)
    other = save(tmp_path / "b.onnx", NODES, 18)
    monkeypatch.setattr("onnx2torch.convert", lambda model: nn.Sequential(nn.Flatten(), nn.Linear(192, 5)))
    with pytest.warns(ModelNotice, match="other values"):
        model = models.load(path)
    x = rand(2, 3, 8, 8, seed=1)
    assert torch.allclose(model.predict(x), wanted(path, x), atol=1e-5)
    with pytest.warns(ModelNotice):
        assert models.fingerprint(models.load(other)) != models.fingerprint(model)


def test_files_that_are_no_classifiers(tmp_path: Path) -> None:
    (tmp_path / "words.onnx").write_bytes(b"these are words")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name in ("words.onnx", "empty.onnx"):
        with pytest.raises(ModelError) as caught:
            models.load(f"onnx:{tmp_path / name}")
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="no file 'missing.onnx'"):
        models.load("missing.onnx")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "z"], ["y"])],
        "two",
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ("n", 3, 8, 8)) for name in "xz"],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
    )
    path = tmp_path / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), str(path))
    with pytest.raises(ModelError, match="one input,.* x, z"):
        models.load(str(path))


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnx2torch"])
def test_a_missing_package(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.onnx", NODES, 18)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=f"{package} is not installed"):
        models.load(path)


@pytest.mark.parametrize("shape", [("n", 8, 8, 3), (1, 8, 8, 3), ("n", "h", "w", 3), ("n", "h", "w", "c")])
@pytest.mark.parametrize("black_box", [False, True])
def test_a_network_of_images_with_the_channels_last(
    tmp_path: Path, shape: tuple[Any, ...], black_box: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = rand(2, 3, 8, 8)
    first = models.load("onnx:" + save(tmp_path / "first.onnx", [CONV, *TAIL_RELU], 18), mean=0.0, std=1.0)
    turned = copy.deepcopy(CONV)
    turned.input[0] = "t"
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]), turned, *TAIL_RELU]
    path = save(tmp_path / "last.onnx", nodes, 18, shape)
    if black_box:
        monkeypatch.setattr(onnx_files, "_agree", lambda *_: False)
        with pytest.warns(ModelNotice):
            last = models.load(f"onnx:{path}")
    else:
        last = models.load(f"onnx:{path}")
    assert torch.allclose(last(x), first(x), atol=1e-5)


def test_a_narrow_image_of_many_channels_has_them_first(tmp_path: Path) -> None:
    """Twelve channels of one column look like images with the channels last, but a convolution reads them first."""
    weight = numbers.normal(size=(4, 12, 3, 1)).astype("float32")
    nodes = [helper.make_node("Conv", ["x", "weight"], ["a"]), *TAIL_RELU]
    path = save(tmp_path / "narrow.onnx", nodes, 18, ("n", 12, 20, 1), weight=weight)
    x = rand(2, 12, 20, 1)
    assert torch.allclose(models.load(f"onnx:{path}")(x), wanted(path, x), atol=1e-5)
