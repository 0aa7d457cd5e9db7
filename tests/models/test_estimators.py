"""Estimators of scikit-learn as modules: equal to the estimator's own functions, to rounding or exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Perceptron, RidgeClassifier, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, LinearSVC, NuSVC
from sklearn.tree import DecisionTreeClassifier

from tests.networks import rand
from underfire.ascent.objectives import logit
from underfire.attacks import fgvm, pgd
from underfire.errors import ModelError, Unsupported
from underfire.models import as_oracle, fingerprint, from_sklearn
from underfire.models.estimators import SoftNeighbours

SHAPE = (2, 3, 4)
LINEAR = [
    LogisticRegression(),
    LinearSVC(),
    SGDClassifier(random_state=0),
    RidgeClassifier(),
    Perceptron(random_state=0),
    OneVsRestClassifier(LogisticRegression()),
]
PAIRWISE = [SVC(kernel="linear"), SVC(), SVC(gamma=3.0, C=10), NuSVC(nu=0.2)]


def rows(classes, count=300, seed=0):
    """Images as rows, and labels that are no running numbers, noisy enough for every kind to err."""
    random = np.random.default_rng(seed)
    x = random.random((count, 24)).astype("float32")
    y = 3 * (x[:, :classes] + 0.1 * random.random((count, classes))).argmax(1) - 1
    return x, y


def images(count=200):
    return rand(count, *SHAPE, seed=1)


def named(estimator):
    return type(estimator).__name__


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("estimator", LINEAR + PAIRWISE, ids=named)
def test_logits_are_the_decision_function_and_classes_the_predictions(estimator, classes):
    if hasattr(estimator, "break_ties"):
        estimator.set_params(break_ties=classes > 2)
    estimator.fit(*rows(classes))
    model, x = from_sklearn(estimator, SHAPE), images()
    wanted = torch.from_numpy(estimator.decision_function(x.flatten(1).numpy())).float()
    logits = model.predict(x)
    found = logits[:, 1] - logits[:, 0] if classes == 2 else logits
    # The dual coefficients of an SVC are rounded to float32, and their products with the kernel sum to some hundreds.
    atol = 1e-4 if named(estimator) == "SVC" else 1e-5
    assert torch.allclose(found, wanted, atol=atol, rtol=1e-5)
    sure = logits.sort(1).values[:, -2:].diff(dim=1).squeeze(1) > 1e-4
    assert torch.equal(logits.argmax(1)[sure], as_oracle(estimator).label(x)[sure])
    assert model.labels == tuple(str(c) for c in estimator.classes_)
    x_adv = pgd(model, x[:20], logits[:20].argmax(1), eps=0.5, steps=20)
    assert (model(x_adv).argmax(1) != logits[:20].argmax(1)).float().mean() > 0.8  # the gradient leads somewhere


def test_probabilities_of_logistic_regression_are_the_softmax():
    for classes in (2, 4):
        estimator = LogisticRegression().fit(*rows(classes))
        wanted = torch.from_numpy(estimator.predict_proba(images().flatten(1).numpy())).float()
        assert torch.allclose(from_sklearn(estimator, SHAPE).predict(images()).softmax(1), wanted, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"max_leaf_nodes": 9}, {"max_depth": 1}, {"criterion": "entropy"}], ids=str)
def test_a_tree_predicts_exactly_even_on_its_thresholds(options):
    estimator = DecisionTreeClassifier(random_state=0, **options).fit(*rows(4))
    model = from_sklearn(estimator, SHAPE)
    x = images(500).flatten(1)
    # Values on and right beside thresholds, where a threshold rounded the wrong way would show.
    asked = model.module.left >= 0
    exact = torch.from_numpy(estimator.tree_.threshold)[asked]
    near = torch.stack([exact.float(), model.module.threshold[asked]])
    near = torch.cat([near, near.nextafter(torch.tensor(9.0)), near.nextafter(torch.tensor(-9.0))])
    for place, feature in enumerate(model.module.feature[asked].tolist()):
        x[place % 500 :: 37, feature] = near[place % len(near), place]
    x = x.clamp(0, 1).view(-1, *SHAPE)
    wanted = torch.from_numpy(estimator.predict_proba(x.flatten(1).numpy()))
    assert torch.allclose(model.predict(x), wanted.float())
    assert torch.equal(model.predict(x).argmax(1), as_oracle(estimator).label(x))
    leaves = torch.from_numpy(estimator.apply(x.flatten(1).numpy()))
    assert torch.equal(model.module.leaf(x), leaves)


def test_every_image_is_in_its_leafs_box_and_in_no_other():
    estimator = DecisionTreeClassifier(random_state=0).fit(*rows(3))
    tree, x = from_sklearn(estimator, SHAPE).module, images()
    values = x.flatten(1)[:, tree.features]
    inside = ((values >= tree.low) & (values <= tree.high)).all(2)
    assert (inside.sum(1) == 1).all()
    assert torch.equal(tree.leaves[inside.int().argmax(1)], tree.leaf(x))


def test_soft_neighbours_are_the_papers_formula_and_become_the_nearest_one():
    points, y = rows(4)
    estimator = KNeighborsClassifier(1).fit(points, y)
    x = images(50)
    soft = from_sklearn(estimator, SHAPE).predict(x).softmax(1)
    weight = np.exp(-((x.flatten(1).numpy()[:, None].astype("float64") - points) ** 2).sum(2))
    onehot = (y[:, None] == estimator.classes_).astype("float64")
    assert torch.allclose(soft, torch.from_numpy(weight @ onehot / weight.sum(1, keepdims=True)).float(), atol=1e-5)
    cold = from_sklearn(estimator, SHAPE, temperature=1e-3).predict(x)
    assert torch.equal(cold.argmax(1), as_oracle(estimator).label(x))
    assert cold.softmax(1).amax(1).median() > 0.999


def test_soft_neighbours_have_a_gradient_towards_other_points():
    points, y = rows(4)
    estimator = KNeighborsClassifier(1).fit(points, y)
    x, oracle = images(40), as_oracle(estimator)
    label = oracle.label(x)
    x_adv = pgd(from_sklearn(estimator, SHAPE), x, label, eps=0.3, steps=10)
    assert (oracle.label(x_adv) != label).float().mean() > 0.9


def test_the_papers_attack_on_svms_is_fgvm_on_a_logit():
    estimator = LinearSVC(C=0.1).fit(*rows(4))
    model, x = from_sklearn(estimator, SHAPE), 0.3 + 0.4 * images(20)
    y = model.predict(x).argmax(1)
    w = torch.from_numpy(estimator.coef_).float()[y]
    wanted = x - 0.2 * (w / w.norm(dim=1, keepdim=True)).view_as(x)
    assert torch.allclose(fgvm(model, x, y, norm="l2", eps=0.2, objective=logit()), wanted, atol=1e-6)
    towards = torch.from_numpy(estimator.coef_).float()[(y + 1) % 4]
    wanted = x + 0.2 * (towards / towards.norm(dim=1, keepdim=True)).view_as(x)
    x_adv = fgvm(model, x, y, goal=(y + 1) % 4, norm="l2", eps=0.2, objective=logit())
    assert torch.allclose(x_adv, wanted, atol=1e-6)


def test_anything_that_predicts_is_an_oracle():
    x, y = rows(3)
    for estimator in (RandomForestClassifier(5, random_state=0), make_pipeline(PCA(5), GaussianNB())):
        estimator.fit(x, y)
        oracle = as_oracle(estimator)
        label = oracle.label(images(30).double())
        assert (estimator.classes_[label] == estimator.predict(images(30).flatten(1).numpy())).all()
        assert (oracle.queries, oracle.classes) == (30, 3)


def test_what_does_not_fit_is_one_clear_error():
    x, y = rows(3)
    with pytest.raises(ModelError, match="fitted"):
        from_sklearn(LogisticRegression(), SHAPE)
    with pytest.raises(ModelError, match="24 features.* 25"):
        from_sklearn(LogisticRegression().fit(x, y), (1, 5, 5))
    bagged = BaggingClassifier(LogisticRegression(), 2).fit(x, y)
    for estimator in (GaussianNB().fit(x, y), SVC(kernel="poly").fit(x, y), bagged):
        with pytest.raises(ModelError, match="use as_oracle"):
            from_sklearn(estimator, SHAPE)
    with pytest.raises(ModelError, match="one is supported"):
        from_sklearn(_two_outputs(x, y), SHAPE)
    with pytest.raises(ModelError, match="temperature must be positive"):
        SoftNeighbours(rand(3, 2), torch.arange(3), temperature=0)
    with pytest.raises(ModelError, match="class 1 has no point"):
        SoftNeighbours(rand(2, 2), torch.tensor([0, 2]))
    tree = from_sklearn(DecisionTreeClassifier().fit(x, y), SHAPE)
    from underfire.gradients.classes import class_gradients

    with pytest.raises(Unsupported, match="no gradient"):
        class_gradients(tree, images(2), torch.zeros(2, 1, dtype=torch.int64))


def _two_outputs(x, y):
    estimator = DecisionTreeClassifier().fit(x, np.stack([y, y], 1))
    estimator.classes_ = estimator.classes_[0]  # or it is taken for something that is no classifier
    return estimator


def test_two_models_have_two_fingerprints():
    points, y = rows(3)
    neighbours = KNeighborsClassifier(1).fit(points, y)
    models = [
        from_sklearn(neighbours, SHAPE),
        from_sklearn(neighbours, SHAPE, temperature=2.0),
        from_sklearn(KNeighborsClassifier(1).fit(points, y[::-1]), SHAPE),
        from_sklearn(SVC(gamma=1.0).fit(points, y), SHAPE),
        from_sklearn(DecisionTreeClassifier(random_state=0).fit(points, y), SHAPE),
        from_sklearn(DecisionTreeClassifier(random_state=0, max_depth=2).fit(points, y), SHAPE),
    ]
    assert len({fingerprint(model) for model in models}) == len(models)
    assert fingerprint(models[0]) == fingerprint(from_sklearn(neighbours, SHAPE))
