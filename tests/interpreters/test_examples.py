"""Explaining by known images: prototypes, criticisms and neighbours, each against a slower way to the same."""

import itertools

import pytest
import torch

import underfire as uf
from tests.networks import rand
from underfire.attribution.feature_space import nearest_known
from underfire.data import Dataset
from underfire.errors import DataError, InputError, ModelError
from underfire.interpreters import NearestNeighbours, Prototypes
from underfire.interpreters.prototypes import (
    choose_criticisms,
    choose_prototypes,
    kernel,
    mean_kernel,
    median_gamma,
)


class Images:
    """Known images with labels."""

    def __init__(self, x, y, classes=4):
        self.x, self.y, self.labels = x, y, tuple(map(str, range(classes)))

    def __len__(self):
        return len(self.x)

    def read(self, index):
        return uf.Batch(self.x[index], self.y[index], tuple(f"image {i}" for i in index))


def known(n=30, classes=4, seed=0):
    x = rand(n, 3, 8, 8, seed=seed, dtype=torch.float64)
    return Dataset("images", Images(x, torch.arange(n) % classes, classes))


@pytest.fixture
def points(generator):
    centres = 3 * torch.randn(4, 5, generator=generator, dtype=torch.float64)
    return (centres.repeat_interleave(10, 0) + torch.randn(40, 5, generator=generator, dtype=torch.float64))[:37]


def slow_kernel(points, gamma):
    return torch.tensor([[torch.exp(-gamma * ((a - b) ** 2).sum()).item() for b in points] for a in points]).double()


def discrepancy(K, S):
    """The squared maximum mean discrepancy between all points and those of S."""
    n, m = len(K), len(S)
    return (
        sum(K[i, j].item() for i in range(n) for j in range(n)) / n**2
        - 2 * sum(K[i, s].item() for i in range(n) for s in S) / (n * m)
        + sum(K[s, t].item() for s in S for t in S) / m**2
    )


@pytest.mark.slow
def test_prototypes_are_chosen_as_the_paper_says(points):
    gamma = median_gamma(points)
    K = slow_kernel(points, gamma)
    S = []
    for _ in range(6):
        S.append(min((i for i in range(len(points)) if i not in S), key=lambda i: discrepancy(K, [*S, i])))
    closeness = mean_kernel(points, gamma, memory=1e-3)  # a row at a time
    assert torch.allclose(closeness, K.mean(1))
    assert choose_prototypes(points, closeness, 6, gamma).tolist() == S


def test_criticisms_are_chosen_as_the_paper_says(points):
    gamma = median_gamma(points)
    K = slow_kernel(points, gamma)
    closeness = mean_kernel(points, gamma)
    S = choose_prototypes(points, closeness, 4, gamma).tolist()

    def worth(C):
        witness = sum(abs(K[:, c].mean() - K[S, c].mean()) for c in C)
        return float(witness + torch.linalg.slogdet(K[C][:, C]).logabsdet)

    C = []
    for _ in range(5):
        C.append(max((i for i in range(len(points)) if i not in [*S, *C]), key=lambda i: worth([*C, i])))
    assert choose_criticisms(points, closeness, torch.tensor(S), 5, gamma).tolist() == C


def test_greedy_prototypes_of_eight_points_are_nearly_the_best_subset(points):
    few, gamma = points[::5], 0.05
    K = slow_kernel(few, gamma)
    gain = {S: discrepancy(K, [0]) - discrepancy(K, list(S)) for S in itertools.combinations(range(len(few)), 3)}
    chosen = choose_prototypes(few, mean_kernel(few, gamma), 3, gamma).tolist()
    total = K.mean().item()  # J(S) = mean of K - discrepancy; greedy reaches 1 - 1/e of the best of a submodular J
    best = max(total - discrepancy(K, list(S)) for S in gain)
    assert total - discrepancy(K, chosen) >= (1 - 1 / torch.e) * best
    everything = choose_prototypes(few, mean_kernel(few, gamma), 99, gamma)
    assert sorted(everything.tolist()) == list(range(len(few)))  # no more than there are, none twice
    assert discrepancy(K, everything.tolist()) == pytest.approx(0, abs=1e-12)


def test_the_median_distance_and_the_kernel(points):
    distances = torch.tensor([(a - b).norm().item() for a, b in itertools.combinations(points, 2)])
    assert median_gamma(points) == pytest.approx(1 / (2 * distances.median().item() ** 2))
    assert median_gamma(points[:1].expand(5, -1)) == 1.0  # all the same: any will do
    assert torch.allclose(kernel(points, points, 0.3), slow_kernel(points, 0.3))


def test_prototypes_of_a_class_are_of_the_class_and_shown_nearest_first(network, generator):
    model, data = network("relu", torch.float64), known()
    method = Prototypes(count=3, criticisms=2, k=2).fit(model, data)
    labels = data[:].y
    assert labels[method.prototypes_].tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert labels[method.criticisms_].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert not set(method.prototypes_.tolist()) & set(method.criticisms_.tolist())
    x, y = data[:2].x, torch.tensor([2, 0])
    shown = method(model, x, y)
    assert shown.y.tolist() == [[2] * 4, [0] * 4]
    assert shown.notes[0] == ("prototype", "prototype", "criticism", "criticism")
    features = model.module[:4]((data[:].x - 0.5) / 0.25).mean((2, 3))
    far = (features[0] - features[method.prototypes_[6:9]]).norm(dim=1).sort()
    assert torch.allclose(shown.distance[0, :2], far.values[:2])
    assert shown.index[0, :2].tolist() == method.prototypes_[6:9][far.indices[:2]].tolist()
    assert Prototypes(bandwidth=0.5).fit(model, data).gamma_ == 2.0
    overall = Prototypes(count=5, criticisms=0, k=3, per_class=False).fit(model, data)
    assert len(overall.prototypes_) == 5 and overall(model, x, y).index.shape == (2, 3)


def test_fewer_known_images_than_asked_for_leave_gaps(network):
    model = network("relu", torch.float64)
    data = Dataset("few", Images(known(4)[:].x, torch.tensor([0, 0, 0, 1])))
    method = Prototypes(count=2, criticisms=1, k=2).fit(model, data)
    shown = method(model, data[:3].x, torch.tensor([0, 1, 3]))
    assert (shown.index >= 0).sum(1).tolist() == [3, 1, 0]
    assert shown.ids[2] == ("", "", "", "") and shown.y[2].tolist() == [-1] * 4


def test_neighbours_are_those_of_scikit_learn(network, generator):
    neighbors = pytest.importorskip("sklearn.neighbors")
    model, data = network("relu", torch.float64), known(50)
    x = torch.rand(7, 3, 8, 8, generator=generator, dtype=torch.float64)
    y = torch.zeros(7, dtype=torch.int64)

    def features(x):
        return model.module[:2]((x - 0.5) / 0.25).mean((2, 3)).numpy(force=True)

    for cosine, metric in ((False, "euclidean"), (True, "cosine")):
        peer = neighbors.NearestNeighbors(n_neighbors=6, metric=metric, algorithm="brute").fit(features(data[:].x))
        distance, index = peer.kneighbors(features(x))
        shown = NearestNeighbours(k=6, layer="1", cosine=cosine).fit(model, data)(model, x, y)
        assert shown.index.tolist() == index.tolist()
        assert shown.distance.tolist() == [pytest.approx(row.tolist(), abs=1e-6) for row in distance]
    same = NearestNeighbours(k=20, layer="1", same_class=True).fit(model, data)(model, x, torch.arange(7) % 4)
    assert all(set(row[i >= 0].tolist()) == {k % 4} for k, (row, i) in enumerate(zip(same.y, same.index, strict=True)))


def test_a_known_image_is_its_own_nearest_neighbour_however_little_memory_there_is(generator):
    features = torch.randn(40, 6, generator=generator)
    features = features + 100  # where squares of float32 would hide small distances
    distance, index = nearest_known(features, features, 2, memory=1e-3)
    assert index[:, 0].tolist() == list(range(40)) and distance[:, 0].tolist() == [0] * 40
    assert bool((distance[:, 1] > 0).all())


def test_bad_input_is_named(network):
    model, data = network("relu", torch.float64), known()
    with pytest.raises(InputError, match="k .* got 0"):
        NearestNeighbours(k=0).fit(model, data)
    with pytest.raises(InputError, match="bandwidth .* 5 and -1"):
        Prototypes(bandwidth=-1.0).fit(model, data)
    with pytest.raises(ModelError, match="no layer 'nine'"):
        NearestNeighbours(layer="nine").fit(model, data)
    with pytest.raises(DataError, match="no images to fit to"):
        NearestNeighbours().fit(model, Dataset("none", Images(rand(0, 3, 8, 8), torch.zeros(0))))
    fitted = NearestNeighbours().fit(model, data)
    other = uf.Classifier(torch.nn.Sequential(model.module[:2], torch.nn.Sequential(*model.module[2:])))
    other.module[0][0] = torch.nn.Conv2d(3, 8, 3, padding=1, dtype=torch.float64)
    with pytest.raises(ModelError, match="no layer '3'"):
        fitted(other, data[:2].x, data[:2].y)
    with torch.no_grad():
        model.module[0].weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="features for 30 of 30"):
        NearestNeighbours().fit(model, data)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_distances_are_float32_where_the_model_computes_with_less(network, dtype):
    model = uf.Classifier(network("relu").module).to(dtype)
    data = Dataset("images", Images(known(20)[:].x.to(dtype), torch.arange(20) % 4))
    for method in (NearestNeighbours(k=1), Prototypes(count=2, criticisms=1, k=1)):
        shown = method.fit(model, data)(model, data[:3].x, data[:3].y)
        assert shown.distance.dtype == torch.float32 and shown.distance.isfinite().all()
    assert NearestNeighbours(k=1).fit(model, data)(model, data[:3].x, data[:3].y).index[:, 0].tolist() == [0, 1, 2]
