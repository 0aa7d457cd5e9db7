"""Attack on a decision tree (Papernot et al., Transferability in Machine Learning, 2016), and an exact variant."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.nearest import Nearest, evaluate_clean
from underfire.catalog import card
from underfire.domains import ADDITIVE, domain_of
from underfire.errors import Unsupported
from underfire.hooks import frozen, unwrap
from underfire.model import Classifier
from underfire.models.trees import DecisionTree
from underfire.validate import at_least_one

Leaf = Literal["nearest", "structure"]


@card(
    "attack",
    paper="Papernot, McDaniel and Goodfellow, Transferability in Machine Learning: from Phenomena to Black-Box Attacks "
    "using Adversarial Samples, 2016",
    domains=ADDITIVE,
    knowledge="white-box",
    norms=("l0", "l2", "linf", "l1"),
    goals=("untargeted", "targeted"),
    random=False,
    atlas="AML.T0043.000",
    minimal=True,
    models="decision tree",
)
def decision_tree(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "l0",
    eps: float | Tensor | None = None,
    leaf: Leaf = "nearest",
    chunk: int = 64,
    generator: Generator | None = None,
) -> Tensor:
    """Move the features on the path to a leaf of another class just past their thresholds.

    A leaf is a box of inputs, so the smallest change that reaches it has a closed form; the smallest over all leaves is
    the smallest change that exists. That is the default (ours). The paper takes the leaf that is nearest in the
    structure of the tree, whatever the distance.

    Args:
        model: a decision tree, `models.from_sklearn(DecisionTreeClassifier(...))`.
        norm: the norm that is minimised; of leaves at the same L0 distance, the nearest in L2 is taken.
        leaf: `"nearest"`, the leaf at the smallest distance; or `"structure"`, the paper's: climb from the leaf of the
            sample to the first ancestor that has a leaf of another class, and take the shallowest of these leaves.
        chunk: number of samples that are compared with all leaves at once, which bounds the memory.

    Returns:
        The nearest inputs that the tree classifies as another class, shaped like `x`; the clean input if there is none
        within eps.

    Raises:
        Unsupported: the model is not a decision tree, or the norm or leaf is unknown.
    """
    at_least_one(chunk=chunk)
    if leaf not in get_args(Leaf):
        raise Unsupported(f"leaf={leaf!r} is unknown; choices: {', '.join(get_args(Leaf))}")
    tree = _tree_of(model)
    nearest = Nearest(x, norm, eps, among=("l0", "l2", "linf", "l1"), domain=domain_of(model))
    with frozen(model), torch.no_grad():
        _, at = evaluate_clean(model, x, y, goal, nearest)
        reachable, classes = (tree.low <= tree.high).all(1), tree.values[tree.leaves].argmax(1)
        for index in (~nearest.found).nonzero().squeeze(1).split(chunk):
            # the leaves that would be a success
            flat = x[index].flatten(1)
            wanted_leaf = classes != at.y[index, None] if at.goal is None else classes == at.goal[index, None]
            # the nearest of them
            if leaf == "nearest":
                at_leaf = flat[:, tree.features]  # [b, L, F]
                cost = _sizes(_inside(at_leaf, tree.low, tree.high) - at_leaf, norm)
            else:
                cost = _ranks(tree, x[index]).to(x.dtype)
            cost, best = cost.masked_fill(~(wanted_leaf & reachable), float("inf")).min(1)
            # move the features that are outside the leaf's intervals
            features, moved = tree.features[best], flat.clone()
            values = flat.gather(1, features)
            wanted = _inside(values, tree.low[best], tree.high[best])
            row, column = (wanted != values).nonzero(as_tuple=True)
            moved[row, features[row, column]] = wanted[row, column]
            nearest.update(moved.view_as(x[index]), cost < float("inf"), index)
    return nearest.x_adv


def _tree_of(model: nn.Module) -> DecisionTree:
    """Return the decision tree inside the model; raise Unsupported if there is none."""
    tree = unwrap(model)
    if not isinstance(tree, DecisionTree):
        raise Unsupported(
            f"decision_tree attacks a decision tree, got {type(tree).__name__}; make one with "
            f"models.from_sklearn(DecisionTreeClassifier(...).fit(...), shape)"
        )
    if isinstance(model, Classifier) and not bool((model.mean == 0).all() and (model.std == 1).all()):
        raise Unsupported("decision_tree needs a tree of the images themselves, without mean and std")
    return tree


def _inside(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return the nearest values in the intervals; keep a value that the tree, which rounds to float32, finds inside."""
    seen = values.to(torch.float32)
    wanted = seen.clamp(low.to(torch.float32), high.to(torch.float32))
    return torch.where(wanted == seen, values, wanted.to(values.dtype))


def _sizes(change: Tensor, norm: str) -> Tensor:
    """Return the size of each change, `[b, L]`, of changes `[b, L, F]`."""
    if norm == "l0":  # the L2 length, scaled below one, decides between equal counts
        return (change != 0).sum(2) + change.norm(dim=2) / (2 * change.shape[2] ** 0.5)
    return torch.linalg.vector_norm(change, float(norm[1:]), dim=2)


def _ranks(tree: DecisionTree, x: Tensor) -> Tensor:
    """Return each leaf's rank in the paper's order, `[b, L]`: by the height of the common ancestor, then by depth."""
    own = tree.paths[torch.searchsorted(tree.leaves, tree.leaf(x))]
    length = (tree.paths >= 0).sum(1)
    shared = ((own[:, None] == tree.paths) & (tree.paths >= 0)).cumprod(2).sum(2)
    return (length.max() - shared) * (length.max() + 1) + length
