"""Evaluate decision trees as modules: exact answers for whole batches, and the box of images of every leaf."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DecisionTree(nn.Module):
    """A decision tree as tensors, with the box of images that reach each leaf.

    The box of a leaf is `low <= x <= high` on the features that its path tests, `[L, F]`, intersected with `[0, 1]`. A
    leaf that no image reaches has `low > high` for some feature. Rows with fewer features are padded with the interval
    `[0, 1]` of feature 0. As scikit-learn does, images are rounded to float32 before they are compared with thresholds.

    Args:
        feature: the feature that each node tests, int64 `[N]`.
        threshold: the threshold of each node, `[N]`; `x <= threshold` goes to the left.
        left: the left child of each node, int64 `[N]`; -1 for a leaf.
        right: the right child of each node, int64 `[N]`; -1 for a leaf.
        values: the share of each class in a node, `[N, K]`.

    Attributes:
        leaves: the nodes that are leaves, int64 `[L]`, ascending.
        paths: the nodes from the root to each leaf, int64 `[L, depth]`, padded with -1.
        features: the features that the path of each leaf tests, int64 `[L, F]`.
        low: their lower bounds, `[L, F]`.
        high: their upper bounds, `[L, F]`.
    """

    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    values: Tensor
    leaves: Tensor
    paths: Tensor
    features: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, feature: Tensor, threshold: Tensor, left: Tensor, right: Tensor, values: Tensor) -> None:
        super().__init__()
        # Round down to float32, for which `x <= threshold` has the same answer for every float32 x.
        rounded = threshold.to(torch.float32)
        below = torch.nextafter(rounded, rounded.new_tensor(float("-inf")))
        self.register_buffer("threshold", torch.where(rounded.to(threshold.dtype) > threshold, below, rounded))
        self.register_buffer("feature", feature.clamp_min(0))
        self.register_buffer("left", left)
        self.register_buffer("right", right)
        self.register_buffer("values", (values / values.sum(1, keepdim=True)).to(torch.float32))
        self._list_leaves()

    def _list_leaves(self) -> None:
        """Find the paths and boxes of all leaves by a search in depth, and store them as padded tensors."""
        feature, threshold = self.feature.tolist(), self.threshold.tolist()
        above = torch.nextafter(self.threshold, self.threshold.new_tensor(float("inf"))).tolist()
        left, right = self.left.tolist(), self.right.tolist()
        # walk down; an entry is a node, the path to it, and the interval of each feature that the path tests
        found: list[tuple[int, list[int], dict[int, tuple[float, float]]]] = []
        stack: list[tuple[int, list[int], dict[int, tuple[float, float]]]] = [(0, [], {})]
        while stack:
            node, path, box = stack.pop()
            path = [*path, node]
            if left[node] < 0:
                found.append((node, path, box))
                continue
            f = feature[node]
            low, high = box.get(f, (0.0, 1.0))
            stack.append((right[node], path, {**box, f: (max(low, above[node]), high)}))
            stack.append((left[node], path, {**box, f: (low, min(high, threshold[node]))}))
        # pad the paths and boxes of all leaves to one length
        leaves, paths, boxes = zip(*sorted(found, key=lambda leaf: leaf[0]), strict=True)
        self.depth = max(map(len, paths)) - 1
        width = max(1, *map(len, boxes))
        filled = [[*box.items(), *[(0, (0.0, 1.0))] * (width - len(box))] for box in boxes]
        self.register_buffer("leaves", torch.tensor(leaves))
        self.register_buffer("paths", torch.tensor([path + [-1] * (self.depth + 1 - len(path)) for path in paths]))
        self.register_buffer("features", torch.tensor([[f for f, _ in row] for row in filled]))
        self.register_buffer("low", torch.tensor([[bounds[0] for _, bounds in row] for row in filled]))
        self.register_buffer("high", torch.tensor([[bounds[1] for _, bounds in row] for row in filled]))

    def leaf(self, x: Tensor) -> Tensor:
        """Return the index of the leaf node that each image `[B, C, H, W]` reaches, int64 `[B]`."""
        flat = x.detach().flatten(1).to(torch.float32)
        node = torch.zeros(len(flat), dtype=torch.int64, device=x.device)
        for _ in range(self.depth):
            tested = flat.gather(1, self.feature[node, None]).squeeze(1)
            child = torch.where(tested <= self.threshold[node], self.left[node], self.right[node])
            node = torch.where(child < 0, node, child)  # a leaf has no child
        return node

    def forward(self, x: Tensor) -> Tensor:
        """Return the share of each class in the leaf of each image, `[B, K]`, without a gradient."""
        return self.values[self.leaf(x)].to(x.dtype)
