"""Feature squeezing: its score word for word, and its joint detectors."""

import pytest
import torch

import underfire as uf
from tests.networks import build_network, rand
from underfire.detectors import EnsembleInterpretation, FeatureSqueezing, load
from underfire.errors import InputError, ModelError
from underfire.transforms.blur import median_blur


def batch(n=8, seed=0):
    x = rand(n, 3, 12, 12, seed=seed)
    return uf.Batch(x, torch.zeros(n, dtype=torch.int64), tuple(map(str, range(n))))


@pytest.fixture(scope="module")
def model():
    return build_network()


def test_the_score_is_the_largest_distance_of_the_probabilities(model):
    x = batch().x
    detector = FeatureSqueezing(squeezers=("bit_depth_2", "median_2")).fit(model, batch())
    with torch.no_grad():
        p, squeezed = model(x).softmax(1), [(x * 3).round() / 3, median_blur(x, 2)]
        wanted = torch.stack([(p - model(s).softmax(1)).abs().sum(1) for s in squeezed], 1)
        assert torch.allclose(detector.distances(model, x), wanted, atol=1e-6)
        assert torch.allclose(detector.score(model, x), wanted.amax(1), atol=1e-6)
    assert torch.allclose(detector.learned["clean_distances"], wanted, atol=1e-6)


def test_joint_detectors_have_names_and_a_misspelt_one_is_refused(model, tmp_path):
    detector = FeatureSqueezing(squeezers="mnist").fit(model, batch())
    detector.save(tmp_path / "fs.safetensors")
    found = load(tmp_path / "fs.safetensors")
    assert isinstance(found, FeatureSqueezing) and found.squeezers == "mnist"
    with pytest.raises(InputError, match="FeatureSqueezing"):
        EnsembleInterpretation.load(tmp_path / "fs.safetensors")
    with pytest.raises(InputError, match="mnsit"):
        FeatureSqueezing(squeezers="mnsit")


def test_another_model_and_a_damaged_file_are_refused(model, tmp_path):
    detector = FeatureSqueezing(squeezers="median_2").fit(model, batch())
    with pytest.raises(ModelError, match="fingerprint"):
        detector.score(build_network(classes=5), batch().x)
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"no tensors")
    for path in (wrong, tmp_path / "missing"):
        with pytest.raises(InputError, match=path.name):
            load(path)
