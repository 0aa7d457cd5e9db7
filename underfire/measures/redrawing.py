"""Give the layers of a network random weights, each layer by its own rule of initialisation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from underfire.errors import Unsupported
from underfire.hooks import frozen


def _rule(layer: nn.Module) -> Callable[[], None] | None:
    """Return the method by which a layer initialises itself, or None; torch's attention names it with an underscore."""
    rule = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
    return rule if callable(rule) else None


def weight_layers(model: nn.Module, x: Tensor) -> tuple[list[str], list[str]]:
    """Return the names of the layers that can be re-initialised, and of those with weights that cannot.

    The layers are in the reverse order of a forward pass. A layer that is never called, because the
    layer around it reads its weights, comes after that layer.
    """
    owners = {name: layer for name, layer in model.named_modules() if next(layer.parameters(False), None) is not None}
    seen: list[str] = []
    handles = [
        layer.register_forward_pre_hook(lambda _, __, name=name: seen.append(name)) for name, layer in owners.items()
    ]
    try:
        with frozen(model), torch.no_grad():
            model(x[:1])
    finally:
        for handle in handles:
            handle.remove()
    downward = list(dict.fromkeys(reversed(seen)))
    for name in owners:
        if name not in downward:
            around = [other for other in downward if not other or name.startswith(f"{other}.")]
            downward.insert(downward.index(max(around, key=len)) + 1 if around else len(downward), name)
    able = [name for name in downward if _rule(owners[name])]
    return able, [name for name in owners if name not in able]


def copy_for_randomisation(model: nn.Module, x: Tensor) -> tuple[nn.Module, list[str], list[str]]:
    """Return a copy of the network, whose weights may be replaced, and its `weight_layers`.

    Raises:
        Unsupported: the model is not a module, or no layer can be re-initialised.
    """
    if not isinstance(model, nn.Module):
        raise Unsupported(
            f"sanity checks re-draw weights: the model must be a torch module, not {type(model).__name__}"
        )
    other = copy.deepcopy(model)
    able, kept = weight_layers(other, x)
    if not able:
        raise Unsupported("no layer of the model has a reset_parameters that would re-draw its weights")
    return other, able, kept


def redraw(layer: nn.Module, generator: torch.Generator) -> None:
    """Give a layer new weights by its own `reset_parameters`; the global random state is left as it was.

    The method runs on a copy of the layer on the CPU, with the global generator seeded from `generator`.
    """
    fresh = copy.deepcopy(layer).cpu()
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        rule = _rule(fresh)
        assert rule is not None
        rule()
        for old, new in zip(layer.state_dict().values(), fresh.state_dict().values(), strict=True):
            old.copy_(new)


@contextmanager
def restore_weights(layer: nn.Module, enabled: bool) -> Iterator[None]:
    """Restore the layer's weights at the end of the block, if `enabled`."""
    learned = copy.deepcopy(layer.state_dict()) if enabled else None
    yield
    if learned is not None:
        layer.load_state_dict(learned)
