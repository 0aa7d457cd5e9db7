"""Read what a network computes outside its layers: a function, such as ReLU, of the output of a layer.

Such a result has the name of the layer, `+` and the name of the function, such as `features.norm5+relu` in a DenseNet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from underfire.hooks.rectifiers import OTHERS, Recogniser, name_of

#: Stands between the name of a layer and that of a function.
APPLIED = "+"
# Functions of single activations, by name.
_FUNCTIONS = OTHERS | {"relu", "relu6", "leaky_relu", "hardtanh", "prelu", "threshold", "clamp"}


class AppliedFunctions(TorchFunctionMode):
    """Watch the outputs of layers, and call `applied` for every activation function that is applied to one of them."""

    def __init__(self) -> None:
        super().__init__()
        self._watched: dict[int, tuple[str, Tensor]] = {}
        self._recogniser = Recogniser()

    def watch(self, name: str, output: Tensor) -> None:
        """Watch the output of a layer."""
        self._watched[id(output)] = name, output

    def applied(self, name: str, function: str, result: Tensor) -> Tensor:
        """Return what the network uses in place of `result`, the value of `function` at the output of layer `name`."""
        raise NotImplementedError

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, function = kwargs or {}, name_of(func).rstrip("_")
        # the input: of an activation by its name, or of a rectifier in any form
        z = (args[0] if args else kwargs.get("input")) if function in _FUNCTIONS else None
        if z is None and (found := self._recogniser.find(func, args, kwargs)) is not None:
            z = found.z
        result = func(*args, **kwargs)
        self._recogniser.note(func, args, result)
        name, output = self._watched.get(id(z), ("", None))
        return result if output is None or not isinstance(result, Tensor) else self.applied(name, function, result)
