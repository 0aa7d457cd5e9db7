"""Find the residual branches of a network, from the graph of one pass, and scale the gradients that they pass back."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from underfire.errors import Unsupported
from underfire.hooks.networks import frozen, readable_layers, remove_at_exit
from underfire.hooks.reading import uncached
from underfire.hooks.tracing import noise_image
from underfire.model import Ensemble, unwatched

Node = Any  # a node of the graph of a pass, whose type has no public name


@contextmanager
def scaled_branches(model: nn.Module, x: Tensor, factor: float) -> Iterator[None]:
    """Multiply the gradients that the residual branches of a model pass back by `factor` inside the block.

    Args:
        model: a network, or an ensemble, whose members all have residual branches.
        x: images of the size that the model takes.

    Raises:
        Unsupported: a network has no residual branches, or the end of one is not the output of a module.
    """

    def scale(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient * factor)

    with ExitStack() as stack:
        sources = [(model, x)]
        if isinstance(model, Ensemble):
            sources = [(one, model.resized(x[:1], number)) for number, one in enumerate(model.members)]
        for branch in (branch for source in sources for branch in residual_branches(*source)):
            stack.enter_context(remove_at_exit(branch.register_forward_hook(scale)))
        yield


def residual_branches(model: nn.Module, x: Tensor) -> list[nn.Module]:
    """Return the modules whose outputs are the residual branches of a network, the last one first.

    A residual branch is the longer one of two paths from a tensor to a sum; the shorter one is the shortcut.

    Raises:
        Unsupported: there is none, or the end of one is not the output of a module.
    """
    made_by: dict[Node, nn.Module] = {}
    calls: Counter[nn.Module] = Counter()

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        calls[module] += 1
        if isinstance(output, Tensor) and output.grad_fn is not None:
            made_by.setdefault(output.grad_fn, module)

    with ExitStack() as stack, torch.enable_grad(), frozen(model), unwatched():
        for _, module in readable_layers(model):
            stack.enter_context(remove_at_exit(module.register_forward_hook(note)))
        logits = uncached(model)(noise_image(x).requires_grad_() * 1)
    nodes = _reached(logits.grad_fn) if logits.grad_fn is not None else []
    users = Counter(node for one in nodes for node in _inputs(one))
    # the end of a branch: walk back along it, until a module has made the tensor
    found: list[nn.Module] = []
    for end in filter(None, map(_branch, nodes)):
        node = end
        while users[node] == 1 and (node not in made_by or calls[made_by[node]] > 1) and len(_inputs(node)) == 1:
            (node,) = _inputs(node)
        if users[node] > 1 or calls[made_by.get(node, model)] != 1 or node not in made_by:
            raise Unsupported("a residual branch of this network does not end in a module, so it cannot be scaled")
        found.append(made_by[node])
    if not found:
        raise Unsupported("this network has no residual branches: no sum of a tensor and what layers make of it")
    return found


def _inputs(node: Node) -> list[Node]:
    return [one for one, _ in node.next_functions if one is not None]


def _reached(start: Node) -> list[Node]:
    """Return the nodes that lead to `start`, the nearest first."""
    found, waiting = {start}, deque([start])
    order: list[Node] = []
    while waiting:
        order.append(waiting.popleft())
        new = [one for one in dict.fromkeys(_inputs(order[-1])) if one not in found]
        found.update(new)
        waiting.extend(new)
    return order


def _branch(node: Node) -> Node | None:
    """Return the longer path of a sum of two tensors that come from one; None for another node, or equal paths."""
    inputs = _inputs(node)
    if not node.name().startswith("AddBackward") or len(inputs) != 2 or inputs[0] is inputs[1]:
        return None
    # walk back from both, one step at a time, until the walks meet
    walks: list[dict[Node, int]] = [{inputs[0]: 0}, {inputs[1]: 0}]
    ends, steps = [[inputs[0]], [inputs[1]]], 0
    while not (meeting := walks[0].keys() & walks[1].keys()):
        if not any(ends):
            return None
        steps += 1
        for side, walk in enumerate(walks):
            ends[side] = [one for end in ends[side] for one in _inputs(end) if one not in walk]
            walk.update(dict.fromkeys(ends[side], steps))
    near = min(meeting, key=lambda n: walks[0][n] + walks[1][n])
    first, second = (walk[near] for walk in walks)
    return None if first == second else inputs[first < second]
