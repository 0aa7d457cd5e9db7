"""`underfire.audit(model, data, attacks=[...])`: objects of a Python session are audited as a spec would be."""

from __future__ import annotations

import inspect
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data import Dataset as TorchDataset

import underfire as uf
from tests.audit.audit_networks import linear, narrow
from underfire.audit.run import run
from underfire.audit.spec import parse_spec
from underfire.errors import InputError, MissingExtra, ModelError, SpecError
from underfire.live import Results

N = 24
QUICK: dict[str, Any] = {"masking": False, "gallery": 0}
PGD = {"name": "pgd", "eps": 0.1, "steps": 3}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return linear()


@pytest.fixture(scope="module")
def batch() -> uf.Batch:
    return uf.data.load("digits:", n=N, seed=1)[:]


@pytest.fixture(scope="module")
def results(model: nn.Module, batch: uf.Batch) -> Results:
    return uf.audit(model, batch, attacks=[PGD], interpreters=["gradient"], masking=False, gallery=2)


def robust(found: Results) -> list[float]:
    return [attack.robust.value for attack in found.findings.attacks]


@pytest.mark.slow
def test_objects_give_the_numbers_of_the_spec(results: Results, tmp_path: Path) -> None:
    spec = parse_spec(
        {
            "model": "python:tests.audit.audit_networks:linear",
            "data": {"uri": "digits:", "n": N, "seed": 1},
            "attacks": [PGD],
            "interpreters": ["gradient"],
            **QUICK,
        }
    )
    wanted = Results(run(spec, tmp_path / "run"))
    assert robust(results) == robust(wanted) and 0 < robust(results)[0] < 1
    assert results.frame().pred_adv.tolist() == wanted.frame().pred_adv.tolist()


@pytest.mark.slow
def test_a_result_is_a_frame_and_a_page(results: Results, tmp_path: Path) -> None:
    frame = results.frame()
    assert len(frame) == N and {"id", "y", "pred_clean", "success", "linf"} <= set(frame.columns)
    assert frame.linf.max() <= 0.1 + 1e-6
    assert len(results.frame("maps")) == N
    assert results.report(tmp_path / "page.html").read_text().startswith("<!")
    shown = results._repr_html_()
    assert shown.startswith("<iframe srcdoc=") and "<!" not in shown  # the page is text inside the attribute
    assert "pgd" in repr(results.ledger.spec.attacks) and "Results of 1 attacks" in repr(results)
    with pytest.raises(InputError, match="rows"):
        results.frame("row")


@pytest.mark.slow
def test_show_opens_the_page(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    results.show()
    assert opened[0].startswith("file://") and opened[0].endswith(".html")


def test_without_pandas_there_is_one_line(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtra, match="pip install pandas"):
        results.frame()


class _Pairs(TorchDataset):
    """Pairs of an image and a label; a second reading of an image would give another one."""

    def __init__(self, batch: uf.Batch) -> None:
        self.batch, self.read = batch, 0

    def __len__(self) -> int:
        return len(self.batch)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        self.read += 1
        return self.batch.x[i].numpy(), int(self.batch.y[i])


FORMS = {
    "Batch": lambda b: b,
    "tensors": lambda b: (b.x, b.y),
    "arrays": lambda b: (b.x.numpy(), b.y.numpy().astype(np.int32)),
    "lists": lambda b: (list(b.x), b.y.tolist()),
    "TensorDataset": lambda b: TensorDataset(b.x, b.y),
    "Dataset of torch": _Pairs,
    "DataLoader": lambda b: DataLoader(TensorDataset(b.x, b.y), batch_size=7),
    "items": lambda b: list(zip(b.x, b.y.tolist(), strict=True)),
    "mappings": lambda b: [{"image": x, "label": y} for x, y in zip(b.x, b.y, strict=True)],
    "generator": lambda b: ((x, y) for x, y in zip(b.x, b.y, strict=True)),
}


@pytest.mark.parametrize("form", FORMS)
def test_data_of_every_form(batch: uf.Batch, form: str) -> None:
    found = uf.data.from_objects(FORMS[form](batch))
    assert len(found) == N
    x, y = found[:]
    assert torch.equal(x, batch.x) and torch.equal(y, batch.y)
    x, y = uf.data.from_objects(FORMS[form](batch), n=5)[:]
    assert len(x) == len(y) == 5


def test_images_of_eight_bits_are_divided_by_255_and_get_their_channels_first() -> None:
    pixels = np.full((4, 5, 3), 51, dtype=np.uint8)
    pixels[0, 0] = (255, 0, 102)
    from PIL import Image

    for image in (pixels, torch.from_numpy(pixels).permute(2, 0, 1), Image.fromarray(pixels)):
        x, y = uf.data.from_objects([(image, 1)])[:]
        assert x.shape == (1, 3, 4, 5) and y.tolist() == [1]
        assert torch.allclose(x[0, :, 0, 0], torch.tensor([1.0, 0.0, 0.4])) and x[0, 0, 1, 1] == pytest.approx(0.2)


@pytest.mark.parametrize(
    "data",
    [5, [], [(torch.zeros(1, 8, 8), 0.5)], [{"picture": 1}], (torch.zeros(2, 1, 8, 8), [0]), [torch.zeros(1, 8, 8)]],
    ids=str,
)
def test_wrong_data_is_refused(data: Any) -> None:
    with pytest.raises(InputError):
        uf.data.from_objects(data)


def test_random_transforms_are_applied_once(model: nn.Module, batch: uf.Batch) -> None:
    data = _Pairs(batch)
    found = uf.audit(model, data, PGD, **QUICK)
    assert data.read == N and len(found.frame()) == N


def test_a_batch_unpacks_and_a_dataset_feeds_a_loader(batch: uf.Batch) -> None:
    x, y = batch
    assert x is batch.x and y is batch.y
    loaded = list(DataLoader(uf.data.load("digits:", n=N, seed=1), batch_size=10))
    assert [len(part[0]) for part in loaded] == [10, 10, 4]
    assert torch.equal(torch.cat([part[0] for part in loaded]), batch.x)
    assert torch.equal(torch.cat([part[1] for part in loaded]), batch.y)


def full_step(model: nn.Module, x: Tensor, y: Tensor, scale: float = 1.0, *, eps: float = 0.1) -> Tensor:
    return (x + scale * eps * torch.sign(uf.attacks.fgsm(model, x, y, eps=eps) - x)).clamp(0, 1)


def whole(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return x.mean(1, keepdim=True)


@pytest.mark.slow
def test_methods_are_names_mappings_partials_and_functions(model: nn.Module, batch: uf.Batch) -> None:
    found = uf.audit(
        model,
        batch,
        attacks=[
            {"name": "pgd", "eps": "8/255", "steps": 2},
            partial(uf.attacks.pgd, norm="l2", eps=0.5, steps=2),
            {"name": full_step, "label": "half", "scale": 0.5},
            partial(full_step, eps=0.05),
            partial(uf.attacks.adv2, interpreter=whole, eps=0.1, steps=1, warm_steps=1),
        ],
        interpreters=[whole, partial(uf.interpreters.smooth_grad, samples=2)],
        **QUICK,
    )
    frame = found.frame().groupby("label").linf.max()
    assert frame["half"] == pytest.approx(0.05, abs=1e-6) and frame["full_step linf"] == pytest.approx(0.05, abs=1e-6)
    assert set(frame.index) > {"pgd linf", "pgd l2"}
    assert "adv2 whole linf" in frame.index
    assert set(found.frame("maps").interpreter) == {"whole", "smooth_grad"}
    assert "full_step" in found.report(Path(found.ledger.path) / "page.html").read_text()


@pytest.mark.slow
def test_finished_cells_of_objects_are_used_again(batch: uf.Batch, tmp_path: Path) -> None:
    def cells(network: nn.Module, data: Any, attack: Any) -> int:
        seen: list[int] = []
        uf.audit(network, data, attack, out=tmp_path / "run", progress=lambda e: seen.append(e.of_cells), **QUICK)
        return seen[0]

    def scaled(scale: float) -> Any:
        return {"name": lambda model, x, y: (x + scale).clamp(0, 1), "eps": 0.1, "label": "shift"}

    assert cells(linear(), batch, scaled(0.1)) > 0
    assert cells(linear(), batch, scaled(0.1)) == 0  # an equal function, an equal network
    assert cells(linear(), batch, scaled(0.05)) > 0  # another value is enclosed in it
    other = linear()
    with torch.no_grad():
        other[1].bias += 0.1
    assert cells(other, batch, scaled(0.1)) > 0
    assert cells(linear(), (batch.x * 0.9, batch.y), scaled(0.1)) > 0


def test_the_model_is_left_as_it_was(model: nn.Module, batch: uf.Batch) -> None:
    model.train()
    uf.audit(model, batch, PGD, **QUICK)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    model.eval()


@pytest.mark.parametrize(
    ("attacks", "keys", "fact"),
    [
        ("pdg", {}, "did you mean 'pgd'"),
        (partial(uf.attacks.pgd, generator=torch.Generator()), {}, "seeds="),
        (lambda model, x, y: x, {}, "eps"),
        (7, {}, "7"),
        ({"name": "pgd", "goal": 33}, {}, "33"),
        ("pgd", {"gallry": 2}, "gallery"),
        ({"name": full_step, "goal": "least-likely"}, {}, "no targeted mode"),
    ],
)
def test_wrong_methods_are_refused(model: nn.Module, batch: uf.Batch, attacks: Any, keys: Any, fact: str) -> None:
    with pytest.raises(SpecError, match=fact) as caught:
        uf.audit(model, batch, attacks, **keys)
    assert "\n" not in str(caught.value)


def test_a_function_is_no_model(batch: uf.Batch) -> None:
    with pytest.raises(ModelError, match="Oracle"):
        uf.audit(lambda x: x, batch, "pgd")


def test_the_package_can_be_called_and_imported() -> None:
    assert uf.audit is sys.modules["underfire.audit"]
    assert list(inspect.signature(uf.audit).parameters)[:4] == ["model", "data", "attacks", "interpreters"]


@pytest.mark.slow
def test_without_attacks_the_usual_methods_that_the_model_supports(model: nn.Module, batch: uf.Batch) -> None:
    found = uf.audit(model, batch, n=6, seeds=[1], **QUICK)
    assert {attack.attack for attack in found.findings.attacks} == {"pgd", "square"}  # no Grad-CAM, so no attack on it
    assert [entry.name for entry in found.ledger.spec.interpreters] == ["gradient"]
    assert any("grad_cam" in note for note in found.ledger.environment["notes"])  # the page says what was left out


@pytest.mark.slow
def test_a_module_gets_a_normalisation_and_class_names(batch: uf.Batch) -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = linear()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x * 0.3081 + 0.1307)  # undoes the normalisation of MNIST

    names = [f"digit {k}" for k in range(10)]
    found = uf.audit(Shifted().eval(), batch, PGD, mean=0.1307, std=[0.3081], labels=names, **QUICK)
    plain = uf.audit(linear(), batch, PGD, **QUICK)
    assert found.frame().pred_clean.tolist() == plain.frame().pred_clean.tolist()
    assert found.ledger.environment["labels"] == names and found.ledger.spec.model.mean == 0.1307
    with pytest.raises(ModelError, match="std"):
        uf.audit(uf.Classifier(linear()), batch, PGD, std=0.5)


@pytest.mark.slow
def test_the_classes_of_data_are_matched_by_name(batch: uf.Batch) -> None:
    names = [f"digit {k}" for k in range(10)]
    other = uf.Batch(batch.x, 9 - batch.y, batch.ids)  # the same images, with their classes numbered backwards
    plain = uf.audit(linear(), batch, PGD, labels=names, **QUICK)
    found = uf.audit(linear(), other, PGD, labels=names, classes=names[::-1], **QUICK)
    assert found.frame().y.tolist() == plain.frame().y.tolist()
    assert found.ledger.spec.data.classes == names[::-1]
    with pytest.raises(InputError, match="classes"):
        uf.audit(linear(), other, PGD, classes=[1, 2], **QUICK)  # type: ignore[list-item]
    with pytest.raises(InputError, match="'digit x'"):
        uf.audit(linear(), other, PGD, labels=names, classes=[*names[:9], "digit x"], **QUICK)


@pytest.mark.parametrize(
    ("attacks", "keys", "fact"),
    [
        ({"name": lambda model, x, y: None, "eps": 0.1, "label": "a"}, {}, "tensor"),
        (PGD, {"interpreters": [lambda model, x, y: None]}, "tensor"),
        (PGD, {"interpreters": [lambda model, x, y: x[:, :1, 0, 0]]}, "shape"),
        (PGD, {"executor": "ray"}, "executor"),
        (PGD, {"device": "cuda:99"}, "cuda:99"),
        (PGD, {"measures": [full_step]}, "measures"),
    ],
)
def test_what_a_session_cannot_do_is_one_line(
    model: nn.Module, batch: uf.Batch, attacks: Any, keys: Any, fact: str
) -> None:
    with pytest.raises(InputError, match=fact) as caught:
        uf.audit(model, batch, attacks, **keys)
    assert "\n" not in str(caught.value)


def test_pixels_from_0_to_255_are_to_be_divided(model: nn.Module, batch: uf.Batch) -> None:
    with pytest.raises(uf.errors.DataError, match="divide them by 255"):
        uf.audit(model, (batch.x * 255, batch.y), attacks=["fgsm"])


def test_objects_are_sources_and_victims(model: nn.Module, batch: uf.Batch) -> None:
    pytest.importorskip("pandas")
    own, other = uf.Classifier(model), uf.Classifier(narrow())
    victims = {"the same": own, "other": other, "bits": uf.find("defense", "bit_depth")(own, bits=2)}
    attack = {"name": "fgsm", "eps": 0.2}
    found = uf.audit(
        own, batch, attacks=attack, sources=[own, {"model": other, "label": "narrow"}], victims=victims, **QUICK
    )
    ways = {(r.source, r.victim): r.way for r in found.findings.transfer.results if r.way != "through"}
    assert ways["Sequential", "the same"] == "white-box" and ways["Sequential", "bits"] == "around"
    matrix = found.matrix()
    assert list(matrix.columns) == ["bits", "other", "the same"] and len(matrix) == 3
    with pytest.raises(InputError, match="victims"):
        uf.audit(own, batch, attacks=attack, **QUICK).matrix()
    with pytest.raises(ModelError, match="int"):
        uf.audit(own, batch, attacks=attack, victims=[3], **QUICK)
