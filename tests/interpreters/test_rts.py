"""Real-time saliency: its objective, its training, its files."""

import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import underfire as uf
from tests.networks import rand
from underfire.data import Dataset
from underfire.errors import DataError, InputError, ModelError, NotFitted, Unsupported
from underfire.hooks import activations, feature_pyramid, frozen
from underfire.interpreters.rts import files
from underfire.interpreters.rts import training as rts_training
from underfire.interpreters.rts.loss import Terms, background, blend, loss, objective
from underfire.interpreters.rts.network import ClassSelector, MaskingModel
from underfire.interpreters.rts.rts import RTS
from underfire.measures.localisation import mass_inside

SHORT = {"selector_steps": 30, "batch_size": 16, "width": 8}


class Squares:
    """Noise with a square of eight pixels somewhere, red or blue: that is the class."""

    labels = ("red", "blue")

    def __len__(self):
        return 256

    def read(self, index):
        generator = torch.Generator().manual_seed(3)
        x = 0.3 * torch.rand(256, 3, 24, 24, generator=generator)
        places = torch.randint(17, (256, 2), generator=generator)
        mask, y = torch.zeros(256, 1, 24, 24, dtype=torch.bool), torch.arange(256) % 2
        for i, (top, left) in enumerate(places.tolist()):
            mask[i, :, top : top + 8, left : left + 8] = True
            x[i, 2 * int(y[i]), top : top + 8, left : left + 8] = 1
        return uf.Batch(x[index], y[index], tuple(map(str, index)), mask[index])


def colours(scale=8.0):
    """Sees the squares of `Squares`: the mean of what is redder, or bluer, than a threshold."""
    first, second = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 2, stride=2)
    head = nn.Linear(2, 2)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[10.0, -10, -10], [-10, -10, 10]])[:, :, None, None])
        first.bias.fill_(-2)
        second.weight.copy_(0.25 * torch.eye(2)[:, :, None, None].expand(2, 2, 2, 2))
        second.bias.zero_()
        head.weight.copy_(scale * torch.tensor([[1.0, -1], [-1, 1]]))
        head.bias.zero_()
    pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    return uf.Classifier(nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), *pool).eval())


@pytest.fixture
def squares():
    return Dataset("squares", Squares())


def test_the_objective_is_equation_8(generator):
    """Word for word, with loops."""
    terms = Terms(smooth=0.7, area=2.0, area_power=1.0, destroy=3.0, destroy_power=0.4)
    m = torch.rand(2, 1, 3, 4, generator=generator, dtype=torch.float64)
    kept, lost = (torch.rand(2, generator=generator, dtype=torch.float64) for _ in range(2))
    found = objective(m, kept.log(), lost.log(), torch.tensor([True, False]), terms)
    for i, real in enumerate((True, False)):
        rows = m[i, 0].tolist()
        tv = sum((rows[r + 1][c] - rows[r][c]) ** 2 for r in range(2) for c in range(4))
        tv += sum((rows[r][c + 1] - rows[r][c]) ** 2 for r in range(3) for c in range(3))
        wanted = 0.7 * tv + 2.0 * (sum(map(sum, rows)) / 12 + 5e-4)
        if real:
            wanted += -math.log(kept[i].item()) + 3.0 * lost[i].item() ** 0.4
        assert found[i].item() == pytest.approx(wanted, rel=1e-12)


def test_the_loss_asks_the_model_about_both_blends(generator, network, images):
    """φ(x; m) and φ(x; 1 - m) pixel by pixel; the mask has the size of the image, so that nothing is resized."""
    model, y, terms = network("relu"), torch.tensor([0, 1, 2, 3, 0, 1]), Terms()
    m = torch.rand(6, 1, 12, 12, generator=generator)
    real = torch.ones(6, dtype=torch.bool)
    with frozen(model):
        found = loss(model, images, y, m, real, terms, torch.Generator().manual_seed(9))
        chance = torch.Generator().manual_seed(9)
        twice = images.repeat(2, 1, 1, 1)
        noisy = (twice + 0.03 * torch.randn(twice.shape, generator=chance)).clamp(0, 1)
        instead = background(twice, chance)
        for i in range(6):
            keep, lose = torch.empty(3, 12, 12), torch.empty(3, 12, 12)
            for r in range(12):
                for c in range(12):
                    share = m[i, 0, r, c]
                    keep[:, r, c] = share * noisy[i, :, r, c] + (1 - share) * instead[i, :, r, c]
                    lose[:, r, c] = (1 - share) * noisy[6 + i, :, r, c] + share * instead[6 + i, :, r, c]
            p = model(torch.stack([keep, lose])).log_softmax(1)[:, y[i]]
            wanted = objective(m[i : i + 1], p[:1], p[1:], real[:1], terms)
            assert torch.allclose(found[i], wanted[0], atol=1e-5)


def test_what_replaces_pixels_is_half_blur_half_colour():
    x = rand(400, 3, 8, 8, seed=1)
    instead = background(x, torch.Generator().manual_seed(0))
    assert instead.min() >= 0 and instead.max() <= 1
    follows = torch.stack(
        [torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] for a, b in zip(x, instead, strict=True)]
    )
    assert 0.4 < (follows > 0.3).float().mean() < 0.6
    full, none = torch.ones(400, 1, 2, 2), torch.zeros(400, 1, 2, 2)
    assert torch.equal(blend(x, full, instead, torch.zeros_like(x)), x)
    assert torch.equal(blend(x, none, instead, torch.zeros_like(x)), instead)


def test_the_selector_says_of_the_image_the_mean_of_what_it_says_of_places(generator):
    selector = ClassSelector(5, 7).requires_grad_(False)
    features = torch.rand(3, 7, 4, 6, generator=generator)
    y = torch.tensor([4, 0, 2])
    act = (features * selector.embedding.weight[y][:, :, None, None]).sum(1)
    assert torch.allclose(selector.exists(features.mean((2, 3)), y), act.mean((1, 2)), atol=1e-6)
    gate = 1 / (1 + torch.exp(-(act - 2)))
    assert torch.allclose(selector(features, y, threshold=2.0), features * gate[:, None], atol=1e-6)


def test_the_scales_of_networks():
    digits = uf.models.load("zoo:cluttered_digits")
    x = rand(1, 1, 64, 64)
    assert feature_pyramid(digits, x) == [("relu", 16, (32, 32)), ("layer2.1.relu2", 48, (16, 16))]
    assert [s.layer for s in rts_training.layers_of(digits, x)] == ["layer2.1.relu2", "relu"]
    assert [s.size for s in rts_training.layers_of(digits, rand(1, 1, 128, 128))] == [(32, 32), (64, 64)]
    with pytest.raises(Unsupported, match="spatial layer"):
        feature_pyramid(nn.Sequential(nn.Flatten(), nn.Linear(64 * 64, 2)), x)


def test_a_mask_is_as_large_as_the_finest_features_whatever_their_sizes(generator):
    masking = MaskingModel([6, 5, 4], 3, width=8).requires_grad_(False).eval()
    sizes = [(6, 2, 3), (5, 3, 5), (4, 12, 20)]  # odd once, and four times as large once
    m = masking([torch.rand(2, *size, generator=generator) for size in sizes], torch.tensor([0, 2]))
    assert m.shape == (2, 1, 12, 20) and m.min() >= 0 and m.max() <= 1


@pytest.mark.slow
def test_it_learns_where_the_evidence_is(squares):
    model = colours()
    batch = squares[:]
    assert (model.predict(batch.x).argmax(1) == batch.y).all()
    train, test = Dataset("train", Squares(), torch.arange(192)), squares[192:]
    interpret = RTS().fit(model, train, steps=100, **SHORT | {"selector_steps": 2000})
    m = interpret(model, test.x, test.y)
    assert m.shape == (64, 1, 24, 24)
    assert mass_inside(m, test.mask).mean() > 0.35  # chance is 64 / 576 = 0.11
    assert interpret(model, test.x, 1 - test.y).mean() < 0.7 * m.mean()  # of the other class there is less


@pytest.mark.slow
def test_training_resumes_to_the_same_weights(squares, tmp_path, monkeypatch):
    monkeypatch.setattr(rts_training, "EVERY", 2)
    model, kept = colours(), tmp_path / "state"
    options = {**SHORT, "steps": 7, "generator": None}
    whole = RTS().fit(model, squares, **options)

    class Enough(Exception):
        pass

    def stop(done, total):
        if done >= 0.8 * total:
            raise Enough

    with pytest.raises(Enough):
        RTS().fit(model, squares, **options, progress=stop, checkpoint=kept)
    with safe_open(kept, "pt") as file:
        assert file.metadata()["step"] == "4"
    begun = []
    again = RTS().fit(model, squares, **options, progress=lambda done, _: begun.append(done), checkpoint=kept)
    assert begun[0] == 256 + 4 * 16 * 5
    first, second = (method._trained.network.state_dict() for method in (whole, again))
    assert all(torch.equal(first[key], second[key]) for key in first)
    with pytest.raises(InputError, match="its plan differs"):
        RTS().fit(model, squares, **{**options, "area": 1.0}, checkpoint=kept)
    with pytest.raises(InputError, match="7 steps .* steps=6"):
        RTS().fit(model, squares, **{**options, "steps": 6}, checkpoint=kept)
    for cut in ("head.weight", "selector.embedding.weight"):
        damaged = {key: value for key, value in load_file(kept).items() if key != f"network.{cut}"}
        with safe_open(kept, "pt") as file:
            save_file(damaged, tmp_path / "damaged", file.metadata())
        with pytest.raises(InputError, match="is damaged"):
            RTS().fit(model, squares, **options, checkpoint=tmp_path / "damaged")
    longer = RTS().fit(model, squares, **{**options, "steps": 9}, checkpoint=kept)._trained.network.state_dict()
    straight = RTS().fit(model, squares, **{**options, "steps": 9})._trained.network.state_dict()
    assert all(torch.equal(longer[key], straight[key]) for key in longer)
    other = RTS().fit(model, squares, **{**options, "generator": torch.Generator().manual_seed(5)})
    assert not torch.equal(first["head.weight"], other._trained.network.state_dict()["head.weight"])


@pytest.mark.slow
def test_what_was_learned_is_saved_and_read(squares, tmp_path):
    model, batch = colours(), squares[:5]
    with pytest.raises(NotFitted, match="nothing to save"):
        RTS().save(tmp_path / "none.safetensors")
    fitted = RTS().fit(model, squares, steps=3, noise=0.01, area=6.0, **SHORT)
    shown, path = fitted(model, batch.x, batch.y), tmp_path / "rts.safetensors"
    fitted.save(path)
    read = RTS(weights=str(path))
    assert torch.equal(read(model, batch.x, batch.y), shown)
    # the file has the terms of the objective, so that training goes on with the same
    terms = files.load(path).terms
    assert (terms.noise, terms.area, terms.destroy) == (0.01, 6.0, 5.0)
    values = [one.loss(model, batch.x, batch.y, generator=torch.Generator().manual_seed(1)) for one in (fitted, read)]
    assert torch.equal(*values)
    wide = read(model.double(), batch.x.double(), batch.y)  # the same classifier, and the same fingerprint
    assert wide.dtype == torch.float64 and torch.allclose(wide, shown.double(), atol=1e-4)
    model.float()
    assert torch.equal(read(model, batch.x, batch.y), shown)  # the wide call has left nothing behind
    with pytest.raises(ModelError, match="not this one"):
        RTS(weights=str(path))(colours(scale=9.0), batch.x, batch.y)
    with torch.no_grad():
        model.module[-1].weight.mul_(2)
    with pytest.raises(ModelError, match=r"rts\.safetensors .*not this one"):
        read(model, batch.x, batch.y)
    refitted = RTS(weights=str(path)).fit(model, squares, steps=1, **SHORT)
    with pytest.raises(ModelError, match="the fitted network"):
        refitted(colours(scale=9.0), batch.x, batch.y)


def test_files_that_are_none(tmp_path, network, images):
    y = torch.zeros(6, dtype=torch.int64)
    path = tmp_path / "w.safetensors"
    with pytest.raises(InputError, match="there is no weights file"):
        RTS(weights=str(path))(network("relu"), images, y)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        RTS(weights=str(path))(network("relu"), images, y)
    embedded = uf.models.zoo.EMBEDDED / "cluttered_digits.safetensors"
    with pytest.raises(InputError, match="has no weights of rts"):
        RTS(weights=str(embedded))(network("relu"), images, y)


def test_bad_input(squares, network, images):
    model = colours()
    with pytest.raises(InputError, match="batch_size .* at least 2"):
        RTS().fit(model, squares, batch_size=1)
    with pytest.raises(InputError, match="steps .* got -1"):
        RTS().fit(model, squares, steps=-1)
    with pytest.raises(InputError, match="area .* got -1"):
        RTS().fit(model, squares, area=-1.0)
    with pytest.raises(InputError, match="threshold .* got nan"):
        RTS(threshold=float("nan"))
    with pytest.raises(NotFitted, match="underfire train rts --model"):
        RTS()(network("relu"), images, torch.zeros(6, dtype=torch.int64))
    fitted = RTS().fit(model, squares, steps=0, **SHORT)
    x = squares[:3].x
    x[1] = float("nan")
    with pytest.raises(DataError, match="nan"):
        fitted(model, x, torch.zeros(3, dtype=torch.int64))


def test_it_costs_one_pass_of_the_classifier(squares):
    model, batch = colours(), squares[:4]
    fitted = RTS().fit(model, squares, steps=0, **SHORT)
    with model.counting() as count:
        fitted(model, batch.x, batch.y)
    assert (count.forwards, count.backwards) == (4, 0)


@pytest.mark.slow
def test_the_weights_in_the_package_point_at_the_digit():
    model = uf.models.load("zoo:cluttered_digits")
    batch = uf.data.load("cluttered-digits:test", n=64)[:]
    m = uf.find("interpreter", "rts")(model, batch.x, batch.y)
    assert m.shape == (64, 1, 32, 32)
    chance = batch.mask.float().mean((1, 2, 3))
    assert (mass_inside(m, batch.mask) > 2 * chance).float().mean() > 0.9
    wrong = uf.find("interpreter", "rts")(model, batch.x, (batch.y + 1) % 10)
    assert wrong.mean() < 0.2 * m.mean()


@pytest.mark.slow
def test_the_weights_in_the_package_keep_what_the_classifier_needs(data_root):
    """CIFAR-10: with the mask the class stays likely, with its complement it does not."""
    model = uf.models.load(f"{data_root / 'weights' / 'resnet56_cifar10.safetensors'}?arch=resnet56_cifar10")
    batch = uf.data.load(f"parquet:{data_root / 'cifar10-test.parquet'}", n=48)[:]
    m = uf.find("interpreter", "rts")(model, batch.x, batch.y)
    chance = torch.Generator().manual_seed(0)
    instead = background(batch.x, chance)
    zero = torch.zeros_like(batch.x)
    kept, lost = (
        model.predict(blend(batch.x, part, instead, zero)).softmax(1).gather(1, batch.y[:, None]).mean()
        for part in (m, 1 - m)
    )
    _, outputs = activations(model, batch.x[:1], ["layer2.8.relu2"])
    assert m.shape[2:] == outputs["layer2.8.relu2"].shape[2:] == (16, 16)
    assert kept > 2 * lost
