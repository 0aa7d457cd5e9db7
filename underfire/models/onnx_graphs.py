"""Rewrite ONNX networks to the form that onnx2torch converts.

onnx2torch converts operators up to opset 17 whose parameters are initializers. Newer versions of most operators take
more types or have further options; what a classifier uses of them can be written in the older form. Constants that are
nodes become initializers, and functions that onnx2torch does not know, such as Gelu, are written out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

OPSET = 17
"""The newest version of the operators that onnx2torch converts."""

# Operators that are computed once if all inputs are constants. No such operator returns more numbers than it takes, so
# that a small file cannot become a large model.
_FOLDED = ("Cast", "Concat", "Identity", "Neg", "Reshape", "Squeeze", "Transpose", "Unsqueeze")

# Options of newer versions, and the value at which the operator equals the older version.
_NEW_OPTIONS: dict[tuple[str, str], Any] = {
    ("Reshape", "allowzero"): None,  # any value: it matters only for empty tensors
    ("Split", "num_outputs"): None,  # any value: it equals the number of outputs
    ("Cast", "saturate"): None,  # any value: it matters only for floating-point numbers of 8 bits
    ("AveragePool", "dilations"): (1, 1),
    ("Resize", "antialias"): 0,
    ("Resize", "keep_aspect_ratio_policy"): b"stretch",
}


def rewritten(model: Any) -> Any:
    """Return an ONNX model in the form that onnx2torch converts; the network stays the same.

    Raises:
        ValueError: it has no such form.
    """
    model = _folded(_inlined(_folded(model)))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        _write_older(node, constants)
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = min(entry.version, OPSET)
    return model


# Operators after which the dimensions of an image are where they were before.
_IN_PLACE = ("Add", "Cast", "Clip", "Div", "Dropout", "Identity", "Mul", "Pad", "Relu", "Sub")
# Operators that take images with the channels first.
_CHANNELS_FIRST = ("AveragePool", "BatchNormalization", "Conv", "GlobalAveragePool", "InstanceNormalization", "MaxPool")


def takes_channels_last(model: Any) -> bool | None:
    """Return whether an ONNX network turns images `[B, H, W, C]` to `[B, C, H, W]` before it uses their channels.

    It is False if a convolution, a pooling or a normalisation reads the images as they are, and None if neither an
    operator of this kind nor a `Transpose` is the first.
    """
    initializers = {tensor.name for tensor in model.graph.initializer}
    names = {value.name for value in model.graph.input} - initializers
    for node in model.graph.node:  # in the order of execution
        if not names.intersection(node.input):
            continue
        if node.op_type == "Transpose":
            orders = [tuple(attribute.ints) for attribute in node.attribute if attribute.name == "perm"]
            return True if orders == [(0, 3, 1, 2)] else None
        if node.op_type in _CHANNELS_FIRST:
            return False
        if node.op_type in _IN_PLACE:
            names.update(node.output)
    return None


def _inlined(model: Any) -> Any:
    """Return the model with functions written out: its own, and operators of ONNX that onnx2torch does not know."""
    from onnx import TensorProto, defs, helper, inliner, shape_inference
    from onnx2torch.node_converters import get_converter

    model = inliner.inline_local_functions(model)
    unknown = set()
    for node in model.graph.node:
        try:
            get_converter(node.op_type, OPSET, node.domain)
        except NotImplementedError:
            unknown.add((node.domain, node.op_type))
    functions = [key for key in unknown if defs.has(key[1], key[0])]
    if not functions:
        return model
    model = inliner.inline_selected_functions(model, functions, inline_schema_functions=True)
    # The functions of ONNX convert their constants to the type of the input.
    inferred = shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.input)}
    for node in model.graph.node:
        if node.op_type == "CastLike":
            node.op_type = "Cast"
            node.attribute.append(helper.make_attribute("to", types.get(node.input[1], TensorProto.FLOAT)))
            del node.input[1]
    return model


def _folded(model: Any) -> Any:
    """Return the model with constant nodes, and nodes that depend on constants alone, as initializers."""
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        constant = node.op_type == "Constant"
        folds = node.op_type in _FOLDED and node.input and all(name in constants for name in node.input)
        if node.domain not in ("", "ai.onnx") or len(node.output) != 1 or not (constant or folds):
            kept.append(node)
            continue
        graph = helper.make_graph([node], "constant", [], [helper.make_empty_tensor_value_info(node.output[0])])
        single = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
        single.graph.initializer.extend(constants[name] for name in node.input)
        evaluator: Any = ReferenceEvaluator(single)
        tensor = numpy_helper.from_array(evaluator.run(None, {})[0], node.output[0])
        constants[node.output[0]] = tensor
        model.graph.initializer.append(tensor)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def _write_older(node: Any, constants: dict[str, Any]) -> None:
    """Write a node in the form of opset 17; older nodes and those that have no such form stay as they are.

    Raises:
        ValueError: an option has no older form.
    """
    from onnx import helper, numpy_helper

    for attribute in list(node.attribute):
        if (node.op_type, attribute.name) not in _NEW_OPTIONS:
            continue
        usual, value = _NEW_OPTIONS[node.op_type, attribute.name], helper.get_attribute_value(attribute)
        if usual is not None and (tuple(value) if isinstance(value, Iterable) and usual == (1, 1) else value) != usual:
            raise ValueError(f"{node.op_type} with {attribute.name}={value}")
        node.attribute.remove(attribute)
    if node.op_type == "GlobalMaxPool":
        node.op_type = "ReduceMax"
        node.attribute.extend([helper.make_attribute("axes", [2, 3]), helper.make_attribute("keepdims", 1)])
    elif node.op_type.startswith("Reduce") and node.op_type != "ReduceSum" and len(node.input) > 1:
        if node.input[1] not in constants:
            raise ValueError(f"{node.op_type} over dimensions that are computed")
        axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
        kept = [attribute for attribute in node.attribute if attribute.name != "noop_with_empty_axes"]
        del node.input[1], node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("axes", axes)])
    elif node.op_type == "Pad" and len(node.input) > 3:
        raise ValueError("Pad of chosen dimensions")
