"""Forward passes of images that differ from known ones in a rectangle, which compute only what the change reaches.

The known images go through the network once. In later passes, a stand-in (`Changed`) represents an activation: it holds
the activation of the known image, which all samples share, and the values in a rectangle for each sample, outside of
which nothing can differ. A convolution reads the rectangle and a margin of the known activation around it; a mean over
all places is that of the known activation, corrected by the rectangle. Nothing is approximated. If the rectangles cover
most of the map, or an operation has no rule, the full activation is assembled and the pass continues as usual. Every
network therefore gives the right answer; a convolutional network gives it faster.

A pass is followed by intercepting each operation of torch (`TorchDispatchMode`), so that the network is not changed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from underfire.incremental.intervals import Intervals
from underfire.incremental.operations import OperationRule, averages_places, rule_for
from underfire.incremental.rectangles import Changed, Node, NotReusable, Place, Unread

__all__ = ["IncrementalForward", "NotReusable"]

# Messages of torch for an operation, such as `numpy()`, that needs a tensor's memory, which a stand-in does not have.
_NO_VALUES = ("not supported for tensor subclasses", "Tensor that doesn't have storage")
#: Rectangles that cover a larger share of a map are slower than the full map.
SHARE = 0.75


class IncrementalForward:
    """Forward passes of images that differ from known images in a rectangle; the known images are passed only once.

    Create and call it inside `frozen(model)`; the logits carry no graph. The network must be deterministic.

    Args:
        model: maps images to logits `[B, K]`.
        x: the known images, `[N, C, H, W]`.

    Attributes:
        logits: the logits of the known images, `[N, K]`.
        needed: the bytes per image that the largest operation of the latest pass read and wrote.

    Raises:
        NotReusable: the network writes into an activation that it also reads elsewhere, or passes it out of torch.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self.model = model
        self.image = Node(x.detach().contiguous(memory_format=torch.channels_last), x.shape)
        first = _First([self.image])
        self.logits = _run(model, Changed(self.image), first)
        self.needed = 0
        # free the activations that no later pass reads
        for node in first.nodes:
            node.clean = node.clean if node.needed else None

    def __call__(self, patch: Tensor, image: Tensor, rows: Intervals, columns: Intervals) -> Tensor:
        """Return the logits `[S, K]` of known images, each with one rectangle replaced.

        Args:
            patch: the pixels in the windows of the intervals, `[S, C, rows.size, columns.size]`; those outside the
                intervals are the pixels of the known image.
            image: the number of the known image of each sample, int64 `[S]`.
            rows: the rows that differ.
            columns: the columns that differ.

        Raises:
            NotReusable: the network called other operations than in the first pass.
        """
        patch = patch.detach().contiguous(memory_format=torch.channels_last)
        logits = _run(self.model, Changed(self.image, patch, Place(image, rows, columns)), later := _Later())
        self.needed = later.most // len(patch)
        return logits


@torch.no_grad()
def _run(model: nn.Module, stand_in: Changed, one_pass: _Pass) -> Tensor:
    """Send a stand-in for images through the model and return the logits; `one_pass` intercepts the operations."""
    try:
        with one_pass:
            logits = model(stand_in)
            return logits.dense() if isinstance(logits, Changed) else logits
    except RuntimeError as error:
        if any(words in str(error) for words in _NO_VALUES):
            raise NotReusable(f"the network passes an activation out of torch: {error}") from error
        raise


class _Pass(TorchDispatchMode):
    """A pass in which every operation is intercepted: on stand-ins it follows its rule, or gets the full activations.

    Full activations that are computed from stand-ins are marked, because no later rule covers them. The mark is "once",
    or "seen twice" if another tensor is a view of the same values, so that no operation may write into them.

    Attributes:
        most: the most bytes that one operation read and wrote.
        filled: tensors into which changed activations were written, by the address of their memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self.filled: dict[int, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Compute one operation: by `step` if its inputs are stand-ins, or else by `usual`."""
        args, kwargs = tree_map(_present, (args, kwargs or {}))
        tensors = _tensors((args, kwargs))
        if any(isinstance(a, Unread) for a in tensors):
            raise NotReusable("the network reads a second result of an operation, such as the indices of max-pooling")
        stand_ins = [a for a in tensors if isinstance(a, Changed)]
        if not stand_ins:
            return self.usual(func, args, kwargs)
        # no rule covers a full tensor that is made of changed activations, because it differs from sample to sample
        known = all(isinstance(a, Changed) or self.mark(a) is None for a in tensors)
        rule = rule_for(func, args, kwargs) if known else None
        if rule is not None and rule.in_place and stand_ins[0].seen_twice:
            raise NotReusable("the network writes into an activation that it also sees elsewhere")
        result = self.step(func, stand_ins, rule, [v for v in tree_leaves((args, kwargs)) if not isinstance(v, Tensor)])
        for a in stand_ins:
            a.uses += 1
        if result is None:
            args, kwargs = tree_map(_dense, (args, kwargs))
            return self.usual(func, args, kwargs)
        if rule is not None and rule.in_place:
            stand_ins[0].become(result)
            return stand_ins[0]
        if rule is not None and rule.view:
            for a in (*stand_ins, *tree_leaves(result)):
                a.seen_twice = True
        return result

    def step(self, func: Any, stand_ins: list[Changed], rule: OperationRule | None, numbers: list[Any]) -> Any:
        """Return the result of an operation as stand-ins, or None if it needs the full activations.

        `numbers` are its arguments that are not tensors.
        """
        raise NotImplementedError

    def mark(self, a: Tensor) -> str | None:
        """Return the mark of a full tensor, or None if it is not made of changed activations."""
        mark = vars(a).get("changed")
        if mark is None and self.filled and a.untyped_storage().data_ptr() in self.filled:
            return "once"
        return mark

    def usual(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Compute the operation on full activations; mark the result if an input is marked."""
        tensors = _tensors((args, kwargs))
        marks = {mark for a in tensors if (mark := self.mark(a)) is not None}
        if torch.Tag.nondeterministic_seeded in func.tags:
            marks.add("once")  # random numbers differ from pass to pass
        if not marks:
            return func(*args, **kwargs)
        if func is torch.ops.aten.as_strided.default:
            raise NotReusable("the network reads the memory layout of an activation (as_strided)")
        aliased = [a for a in func._schema.arguments if a.alias_info is not None]
        if "seen twice" in marks and any(a.alias_info.is_write for a in aliased):
            raise NotReusable("the network writes into an activation that it also sees elsewhere")
        if func is torch.ops.aten.view.default and not args[0].is_contiguous():
            # it would be contiguous if the images were not channels last
            vars(args[0])["changed"] = "seen twice"
            marks, args = {"seen twice"}, (args[0].contiguous(), *args[1:])
        result = func(*args, **kwargs)
        given = {a.name: v for a, v in zip(func._schema.arguments, args, strict=False)} | kwargs
        for written in _tensors([given.get(a.name) for a in aliased if a.alias_info.is_write]):
            if self.mark(written) is None:  # then the tensor that it may be a view of is not marked either
                self.filled[written.untyped_storage().data_ptr()] = written
        for a in _tensors(result):
            vars(a)["changed"] = "seen twice" if aliased and "seen twice" in marks else "once"
        self.weigh((args, result))
        return result

    def weigh(self, involved: Any) -> None:
        """Update `most` by the bytes of the tensors that an operation read and wrote."""
        self.most = max(self.most, sum(a.numel() * a.element_size() for a in _tensors(involved)))


class _First(_Pass):
    """The pass of the known images, which records each operation at the node of its first stand-in."""

    def __init__(self, nodes: list[Node]) -> None:
        super().__init__()
        self.nodes = nodes

    def step(self, func: Any, stand_ins: list[Changed], rule: OperationRule | None, numbers: list[Any]) -> Any:
        """Compute the operation on the known activations and record it."""
        first, place = stand_ins[0].node, len(stand_ins[0].node.children)
        for a in stand_ins:
            # keep activations that later passes read with a margin, crop to a common rectangle, or assemble in full
            a.node.needed |= rule is None or rule.reads_around or len(stand_ins) > 1
            a.node.children.append(None)
        if averages_places(func, numbers):
            return _marked_mean(stand_ins[0], numbers)
        if rule is None:
            return None
        result = rule.whole(*(a.node.clean for a in stand_ins))
        made: list[Node] = []

        def note(t: Any) -> Any:
            made.append(Node(t, t.shape))
            return Changed(made[-1])

        result = _maps(note, result)
        self.nodes += made
        first.children[place] = func, numbers, made
        return result


class _Later(_Pass):
    """A pass of changed images, which repeats the recorded operations on rectangles."""

    def step(self, func: Any, stand_ins: list[Changed], rule: OperationRule | None, numbers: list[Any]) -> Any:
        """Compute the operation on the rectangles, unless they are too large."""
        # the operation must be the recorded one
        first = stand_ins[0]
        if any(a.uses >= len(a.node.children) for a in stand_ins):
            raise NotReusable("the network called more operations than before")
        before = first.node.children[first.uses]
        if before is None and averages_places(func, numbers):
            return _marked_mean(first, numbers)
        if rule is None or before is None:
            return None
        if before[0] is not func:
            raise NotReusable(f"the network called {func}, but {before[0]} before")
        if before[1] != numbers:
            raise NotReusable(f"the network called {func} with {numbers}, but with {before[1]} before")
        made, place, patches = before[2], first.place, [a.patch for a in stand_ins]
        assert place is not None
        # find where the result can differ, and the values that this part reads
        shape = made[0].shape
        if rule.moved is not None:
            rows = place.rows.moved(rule.moved[0], shape[2])
            place = Place(place.image, rows, place.columns.moved(rule.moved[1], shape[3]))
        elif rule.reads_around:
            down, across = rule.windows
            rows, columns = place.rows.through(down, shape[2]), place.columns.through(across, shape[3])
            place = Place(place.image, rows, columns)
            if place.share > SHARE:
                return None
            top, left = rows.start * down.stride - down.padding, columns.start * across.stride - across.padding
            patches = [first.crop(top, down.needed(rows.size), left, across.needed(columns.size), rule.outside)]
        elif not all(place.same(a.place) for a in stand_ins if a.place is not None):
            for a in stand_ins:
                assert a.place is not None
                place = place.union(a.place)
            if place.share > SHARE:
                return None
            rows, columns = place.rows, place.columns
            patches = [a.crop(rows.start, rows.size, columns.start, columns.size) for a in stand_ins]
        # compute that part
        nodes, result = iter(made), rule.part(*patches)
        self.weigh((patches, result))
        return _maps(lambda t: Changed(next(nodes), t, place), result)


def _present(a: Any) -> Any:
    """Return the full activations in place of a stand-in that already has them."""
    return a.whole if isinstance(a, Changed) and a.whole is not None else a


def _dense(a: Any) -> Any:
    """Return the full activations, marked, in place of a stand-in."""
    if not isinstance(a, Changed):
        return a
    whole = a.dense()
    vars(whole)["changed"] = "seen twice" if a.seen_twice else "once"
    return whole


def _marked_mean(a: Changed, numbers: list[Any]) -> Tensor:
    """Return the mean of a stand-in over its places, marked; the stand-in stays one."""
    mean = a.mean_of_places(keepdim=numbers[2:] == [True])
    vars(mean)["changed"] = "once"
    return mean


def _tensors(values: Any) -> list[Tensor]:
    """Return all tensors of nested arguments."""
    return [a for a in tree_leaves(values) if isinstance(a, Tensor)]


def _maps(f: Any, result: Any) -> Any:
    """Apply `f` to the map that an operation returns; its other results, if any, become `Unread`."""
    if isinstance(result, Tensor):
        return f(result)
    return type(result)(f(t) if t.dim() == 4 and t.is_floating_point() else Unread(t) for t in result)
