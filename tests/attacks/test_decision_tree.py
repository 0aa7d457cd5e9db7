"""The attack on trees against brute force over all leaves, and a walk through the tree as the paper has it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.tree import DecisionTreeClassifier

from tests.networks import rand
from underfire.attacks import decision_tree
from underfire.errors import DataError, InputError, Unsupported
from underfire.model import Classifier
from underfire.models import from_sklearn

SHAPE = (1, 2, 3)
NORMS = ["l0", "l2", "linf", "l1"]


@pytest.fixture(scope="module")
def fitted():
    random = np.random.default_rng(0)
    x = random.random((150, 6)).astype("float32")
    y = (x[:, :3] + 0.3 * random.random((150, 3))).argmax(1)
    estimator = DecisionTreeClassifier(random_state=0).fit(x, y)
    return estimator, from_sklearn(estimator, SHAPE)


@pytest.fixture
def x():
    x = rand(80, *SHAPE)
    x[:, :, 0, 0], x[::2, :, 1, 1] = 0, 1
    return x


def length(change, norm):
    change = change.double().flatten(1)
    return (change != 0).double().sum(1) if norm == "l0" else change.norm(float(norm[1:]), dim=1)


def boxes(tree):
    """Every leaf's box `(low, high)` by recursion in float64, open below: `low < x <= high`."""

    def walk(node, low, high):
        if tree.children_left[node] < 0:
            yield node, low, high
            return
        f, t = tree.feature[node], tree.threshold[node]
        left, right = high.copy(), low.copy()
        left[f], right[f] = min(high[f], t), max(low[f], t)
        yield from walk(tree.children_left[node], low, left)
        yield from walk(tree.children_right[node], right, high)

    return list(walk(0, np.full(6, -1.0), np.full(6, 1.0)))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("targeted", [False, True])
def test_the_change_is_the_smallest_there_is(fitted, x, norm, targeted):
    estimator, model = fitted
    y = model(x).argmax(1)
    goal = (y + 1) % 3 if targeted else None
    x_adv = decision_tree(model, x, y, goal=goal, norm=norm)
    predicted = torch.from_numpy(estimator.predict(x_adv.flatten(1).numpy()))
    assert (predicted == goal if targeted else predicted != y).all()
    wanted = np.full(len(x), np.inf)
    for node, low, high in boxes(estimator.tree_):
        if (low >= high).any():
            continue
        rows = x.flatten(1).double().numpy()
        change = torch.from_numpy(np.clip(rows, low + 1e-12 * (low > rows), high) - rows)
        there = estimator.tree_.value[node, 0].argmax()
        able = there == goal.numpy() if targeted else there != y.numpy()
        wanted = np.where(able, np.minimum(wanted, length(change, norm).numpy()), wanted)
    assert np.allclose(length(x_adv - x, norm), wanted, atol=2e-7)


@pytest.mark.parametrize("leaf", ["nearest", "structure"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_is_its_singles_and_nothing_else_changes(fitted, x, leaf, dtype):
    _, model = fitted
    x = x.to(dtype)
    y, before = model(x).argmax(1), x.clone()
    x_adv = decision_tree(model, x, y, leaf=leaf, chunk=7)
    singles = torch.cat([decision_tree(model, x[i : i + 1], y[i : i + 1], leaf=leaf) for i in range(len(x))])
    assert torch.equal(x_adv, singles)
    assert x_adv.dtype == dtype and torch.equal(x, before)
    assert ((x_adv >= 0) & (x_adv <= 1)).all()
    assert (model(x_adv).argmax(1) != y).all()


def test_the_papers_search_climbs_to_the_nearest_ancestor(fitted, x):
    """Algorithm 2 one image at a time: up from the leaf, until below the other child there is another class."""
    estimator, model = fitted
    tree = estimator.tree_
    parent = {c: n for n in range(tree.node_count) for c in (tree.children_left[n], tree.children_right[n]) if c >= 0}

    def leaves(node):
        if tree.children_left[node] < 0:
            return [node]
        return leaves(tree.children_left[node]) + leaves(tree.children_right[node])

    def depth(node):
        return 0 if node == 0 else 1 + depth(parent[node])

    y = model(x).argmax(1)
    x_adv = decision_tree(model, x, y, leaf="structure")
    reached = estimator.apply(x_adv.flatten(1).numpy())
    for i, node in enumerate(estimator.apply(x.flatten(1).numpy())):
        ancestor, found = node, []
        while not found:
            up = parent[ancestor]
            other = tree.children_right[up] if ancestor == tree.children_left[up] else tree.children_left[up]
            found = [n for n in leaves(other) if tree.value[n, 0].argmax() != y[i]]
            ancestor = up
        assert reached[i] in found
        assert depth(reached[i]) == min(map(depth, found))
    assert (length(decision_tree(model, x, y) - x, "l0") <= length(x_adv - x, "l0")).all()


def test_eps_bounds_it_and_failures_are_the_clean_image(fitted, x):
    _, model = fitted
    y = model(x).argmax(1)
    free = decision_tree(model, x, y, norm="l2")
    size = length(free - x, "l2")
    eps = size.median().float()
    bounded = decision_tree(model, x, y, norm="l2", eps=eps)
    near = size <= eps
    assert near.any() and not near.all()
    assert torch.equal(bounded[near], free[near])
    assert torch.equal(bounded[~near], x[~near])
    assert torch.equal(decision_tree(model, x, (y + 1) % 3), x)  # wrong already
    assert decision_tree(model, x[:0], y[:0]).shape == (0, *SHAPE)


def test_a_tree_of_one_class_cannot_be_fooled(x):
    rows = np.random.default_rng(0).random((20, 6))
    estimator = DecisionTreeClassifier(max_depth=1).fit(rows, [0] * 19 + [1])
    model = from_sklearn(estimator, SHAPE)
    model.module.values[:] = torch.tensor([1.0, 0.0])
    y = torch.zeros(len(x), dtype=torch.int64)
    assert torch.equal(decision_tree(model, x, y), x)


def test_leaves_outside_the_box_are_never_gone_to(x):
    rows = np.random.default_rng(0).random((40, 6))
    y = (rows[:, 0] > 0.5).astype(int)
    rows[y == 1] += 1  # one class lies outside the images
    model = from_sklearn(DecisionTreeClassifier(max_features=1, random_state=0).fit(rows * 2, y), SHAPE)
    predicted = model(x).argmax(1)
    x_adv = decision_tree(model, x, predicted)
    assert torch.equal(x_adv[model(x_adv).argmax(1) == predicted], x[model(x_adv).argmax(1) == predicted])
    assert ((x_adv >= 0) & (x_adv <= 1)).all()


def test_what_is_no_tree_and_what_is_wrong_is_one_clear_error(fitted, relu_model, x):
    _, model = fitted
    y = torch.zeros(len(x), dtype=torch.int64)
    with pytest.raises(Unsupported, match="decision_tree .* got Sequential"):
        decision_tree(relu_model, rand(1, 3, 9, 9), y[:1])
    with pytest.raises(Unsupported, match="without mean and std"):
        decision_tree(Classifier(model.module, mean=0.5), x, y)
    with pytest.raises(Unsupported, match="norm 'l7'"):
        decision_tree(model, x, y, norm="l7")
    with pytest.raises(Unsupported, match="leaf='far' is unknown"):
        decision_tree(model, x, y, leaf="far")
    with pytest.raises(InputError, match="chunk .* at least 1"):
        decision_tree(model, x, y, chunk=0)
    with pytest.raises(InputError, match="eps must be >= 0"):
        decision_tree(model, x, y, eps=-1.0)
    with pytest.raises(DataError, match="label 9 is outside"):
        decision_tree(model, x, y + 9)
    with pytest.raises(DataError, match="pixels must be in"):
        decision_tree(model, x + 0.5, y)
