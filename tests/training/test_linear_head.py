"""A linear head is the logistic regression of scikit-learn on the features of the frozen network."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.networks import build_network, rand
from underfire import data, models
from underfire.cli import main
from underfire.errors import DataError, InputError, ModelError
from underfire.model import Classifier
from underfire.models.heads import last_linear, with_classes
from underfire.training import linear_head


@pytest.fixture
def folder(tmp_path):
    """Red, green and blue noise, twelve images of each."""
    generator = np.random.default_rng(0)
    for channel, name in enumerate(("blue", "green", "red")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(12):
            pixels = generator.integers(0, 120, (8, 8, 3))
            pixels[:, :, 2 - channel] += 110
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / name / f"{number:02}.png")
    return tmp_path


@pytest.mark.slow
def test_the_head_is_a_regression_on_the_features(folder):
    model, images = build_network(classes=7), data.load(f"folder:{folder / 'photos'}")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen = []
    found = linear_head(model, images, folds=3, progress=lambda done, total: seen.append((done, total)))
    made, batch = found.classifier, images[:]
    assert seen[-1] == (36, 36)
    assert made.labels == images.labels
    assert found.majority == pytest.approx(1 / 3)
    assert found.accuracy.value > 0.9
    assert found.balanced_accuracy == pytest.approx(found.accuracy.value)  # classes of one size
    # a slow repetition: standardise what the head reads, fit, and compare the logits up to their mean
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.preprocessing import StandardScaler

    body = nn.Sequential(*list(model.module)[:-1])
    with torch.no_grad():
        features = body((batch.x - 0.5) / 0.25).double().numpy()
        logits = made(batch.x).double()
    scores, y = {}, batch.y.numpy()
    for strength in np.logspace(-4, 4, 10):
        right = []
        for learn, test in StratifiedKFold(3, shuffle=True, random_state=0).split(features, y):
            scaler = StandardScaler().fit(features[learn])
            regression = LogisticRegression(C=strength, class_weight="balanced", max_iter=2000)
            regression.fit(scaler.transform(features[learn]), y[learn])
            right.append(regression.score(scaler.transform(features[test]), y[test]))
        scores[strength] = np.mean(right)
    best = max(scores, key=lambda strength: scores[strength])  # the first of the best
    standard = StandardScaler().fit_transform(features)
    regression = LogisticRegression(C=best, class_weight="balanced", max_iter=2000).fit(standard, y)
    expected = regression.decision_function(standard)
    centred = torch.from_numpy(expected - expected.mean(1, keepdims=True))
    assert torch.allclose(logits - logits.mean(1, keepdim=True), centred, atol=1e-3 * float(centred.abs().max()))
    # the network that was given is as before
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert made.module[0].weight.equal(model.module[0].weight)


@pytest.mark.slow
def test_two_classes_get_two_logits(folder):
    import shutil

    shutil.rmtree(folder / "photos" / "green")
    made = linear_head(build_network(), data.load(f"folder:{folder / 'photos'}"), folds=3)
    assert made.classifier(rand(2, 3, 8, 8)).shape == (2, 2)
    assert made.accuracy.value > 0.9


def test_bad_input(folder):
    images = data.load(f"folder:{folder / 'photos'}")
    with pytest.raises(DataError, match="22 images"):
        linear_head(build_network(), images, folds=20)
    with pytest.raises(ModelError, match="Conv2d"):
        linear_head(Classifier(nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten())), images, folds=3)
    for classes in (1, 10**6):
        with pytest.raises(ModelError, match="num_classes"):
            with_classes(build_network().module, classes)


def test_a_network_of_the_zoo_takes_another_number_of_classes(tmp_path):
    from safetensors.torch import save_file

    network = with_classes(models.zoo.entry("resnet20_cifar10").build(), 3)
    assert last_linear(network)[1].out_features == 3
    save_file(network.state_dict(), tmp_path / "three.safetensors")
    uri = f"{tmp_path / 'three.safetensors'}?arch=resnet20_cifar10"
    made = models.load(f"{uri}&num_classes=3")
    assert made(rand(1, 3, 32, 32)).shape == (1, 3)
    assert made.labels is None
    (tmp_path / "classes.json").write_text('["a", "b", "c"]')
    assert models.load(f"{uri}&num_classes=3").labels == ("a", "b", "c")
    with pytest.raises(ModelError, match="num_classes=3"):
        models.load(uri)
    with pytest.raises(ModelError, match="num_classes"):
        models.load(f"{uri}&num_classes=three")


@pytest.mark.slow
def test_the_command_writes_weights_and_class_names(folder, capsys):
    from safetensors.torch import save_file

    save_file(models.zoo.entry("resnet20_cifar10").build().state_dict(), folder / "base.safetensors")
    command = ["train", "linear_head", "--model", f"{folder / 'base.safetensors'}?arch=resnet20_cifar10"]
    command += ["--data", f"folder:{folder / 'photos'}", "--out", str(folder / "new" / "head.safetensors")]
    assert main([*command, "--set", "folds=3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 36
    made = models.load(f"{folder / 'new' / 'head.safetensors'}?arch=resnet20_cifar10&num_classes=3")
    assert made.labels == ("blue", "green", "red")
    assert main(command) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*command, "--set", "epochs=3", "--force"]) == 2
    assert "folds" in capsys.readouterr().err


@pytest.mark.slow
def test_a_network_in_training_mode_is_read_in_evaluation_mode_and_stays_as_it_is(folder):
    images = data.load(f"folder:{folder / 'photos'}")
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    model = Classifier(body.train())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    linear_head(model, images, folds=2)
    assert model.module.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("folds", "error"), [(1, InputError), (0, InputError), (11, DataError), (13, DataError)])
def test_every_part_of_the_inner_folds_needs_every_class(folder, folds, error):
    """Of twelve images, a part of one of 11 folds has two, which leaves 10."""
    with pytest.raises(error, match="fold"):
        linear_head(build_network(), data.load(f"folder:{folder / 'photos'}"), folds=folds)
