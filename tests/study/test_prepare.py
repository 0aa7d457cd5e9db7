"""The command line of a study, and how its images are chosen."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import underfire as uf
from underfire import figures
from underfire.cli import main
from underfire.data import read_image
from underfire.errors import DataError, InputError
from underfire.study import simulate
from underfire.study.design import Item, read_study
from underfire.study.pictures import enlarged
from underfire.study.prepare import choose_items
from underfire.study.store import AnswerStore

pytestmark = pytest.mark.usefixtures("in_a_folder_with_victims")

DIGITS = ("prepare", "digits:", "--model", "python:victims:right", "--interpreter", "gradient", "--quiet")


@pytest.fixture
def study(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `underfire study` and gives its exit code and what it said."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main(["study", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def items(predictions: str, labels: str = "") -> list[Item]:
    pairs = zip(predictions, labels or predictions, strict=True)
    return [Item(str(i), int(y), int(k), 1.0) for i, (k, y) in enumerate(pairs)]


def test_images_are_balanced_over_what_the_model_says() -> None:
    pool = items("0" * 50 + "1" * 20 + "2" * 10 + "3")
    chosen = choose_items(pool, n=30, practice=6, classes=3, mistakes=None, seed=0)
    assert Counter(pool[i].prediction for i in chosen[:30]) == {0: 10, 1: 10, 2: 10}
    assert len(set(chosen)) == 36 and set(Counter(pool[i].prediction for i in chosen[30:])) == {0, 1}
    assert chosen == choose_items(pool, n=30, practice=6, classes=3, mistakes=None, seed=0)
    assert chosen != choose_items(pool, n=30, practice=6, classes=3, mistakes=None, seed=1)


def test_the_share_of_mistakes_is_what_was_asked_for() -> None:
    pool = items("01" * 50, "01" * 40 + "10" * 10)
    chosen = choose_items(pool, n=20, practice=2, classes=2, mistakes=0.25, seed=0)
    assert sum(pool[i].wrong for i in chosen[:20]) == 5
    with pytest.raises(DataError, match="--mistakes 0.9 .* 20 and 80"):
        choose_items(pool, n=40, practice=2, classes=2, mistakes=0.9, seed=0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n": 5}, "--n must be even and at least 4"),
        ({"n": 2}, "at least 4"),
        ({"practice": 3}, "--practice must be even"),
        ({"classes": 11}, "--classes must lie between 2 and 10"),
        ({"mistakes": 1.5}, "--mistakes must be .* between 0 and 1, got 1.5"),
        ({"n": 40}, "only 20 of"),
    ],
)
def test_numbers_that_make_no_study_are_refused(options: dict[str, Any], says: str) -> None:
    given = {"n": 10, "practice": 2, "classes": 4, "mistakes": None, "seed": 0, **options}
    with pytest.raises(InputError, match=says):
        choose_items(items("01" * 10), **given)


def test_a_model_of_one_class_makes_no_study() -> None:
    with pytest.raises(DataError, match="two predicted classes"):
        choose_items(items("0" * 20), n=10, practice=2, classes=4, mistakes=None, seed=0)


@pytest.mark.slow
def test_prepare_simulate_report(study: Callable[..., tuple[int, str, str]]) -> None:
    assert study(*DIGITS, "--n", 16, "--practice", 4, "--classes", 4, "--out", "s")[0] == 0
    made = read_study(Path("s"))
    assert made.shown == 16 and len(made.choices) == 4 and made.about["interpreter"] == "gradient"
    assert len(list(Path("s/pictures").iterdir())) == 2 * 20
    assert {read_image(made.picture(i, kind)).shape for i in (0, 19) for kind in ("image", "map")} == {(3, 320, 320)}
    assert Counter(i.prediction for i in made.items[:16]) == dict.fromkeys(made.classes, 4)

    code, _, said = study("report", "s")
    assert code == 2 and "no answers yet" in said
    store = AnswerStore(Path("s"))
    for name in ("Ada", "Grace"):
        simulate.answer_all(simulate.SimulatedAnnotator(), made, store, name)
    store.close()
    code, shown, _ = study("report", "s")
    assert code == 0 and "bits/s withheld: it takes 64 answers, and there are 16" in shown and "Grace" in shown
    assert "Grace" in Path("s/results.html").read_text()
    code, shown, _ = study("report", "s", "--json", "--html", "elsewhere/page.html")
    assert Path("elsewhere/page.html").exists()
    code, _, said = study("report", "s", "--html", "elsewhere")
    assert code == 2 and "elsewhere is a folder" in said
    found = json.loads(shown)
    assert found["pooled"]["with"]["n"] == 16 and found["rate"]["value"]["n"] == 2
    assert found["people"][1]["name"] == "Grace" and found["people"][1]["figures"]["with"]["n"] == 8
    code, _, said = study("withdraw", "s", "Grade")
    assert code == 2 and "no annotator 'Grade'; did you mean 'Grace'" in said
    assert study("withdraw", "s", "Grace") == (0, "", "Grace has withdrawn: the name and 20 answers are deleted\n")
    assert "1 annotator has withdrawn" in study("report", "s")[1]

    code, _, said = study(*DIGITS, "--n", 16, "--out", "s", "--force")
    assert code == 2 and "answers of another study" in said


@pytest.mark.slow
def test_the_same_call_makes_the_same_study(study: Callable[..., tuple[int, str, str]]) -> None:
    for name in ("a", "b"):
        assert study(*DIGITS, "--n", 8, "--practice", 2, "--out", name)[0] == 0
    for file in Path("a").rglob("*.*"):
        assert file.read_bytes() == (Path("b") / file.relative_to("a")).read_bytes(), file
    code, _, said = study(*DIGITS, "--n", 8, "--practice", 2, "--out", "a")
    assert code == 2 and "exists already; pass --force" in said


def test_image_files_have_no_labels(
    study: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("files").mkdir()
    batch = uf.data.load("digits:", n=30)[:]
    for i, image in enumerate(batch.x):
        figures.save(image, f"files/{i:02d}.png")
    model = ("--model", "python:victims:without_pooling", "--interpreter", "gradient")
    ask = ("prepare", "files", *model, "--n", 4, "--practice", 2, "--quiet")
    code, _, said = study(*ask, "--out", "b")
    assert code == 0, said
    assert {item.label for item in read_study(Path("b")).items} == {None}
    monkeypatch.setattr(
        "underfire.cli.study_images.StudyImages.batches", None
    )  # the fault is said before any image is read
    code, _, said = study(*ask, "--mistakes", "0.5", "--out", "c")
    assert code == 2 and "--mistakes needs labels" in said and not Path("c").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("prepare", "nowhere", *DIGITS[2:]), "no such image, folder or data URI"),
        ((*DIGITS, "--n", 7), "--n must be even"),
        (
            ("prepare", "digits:", "--model", "python:victims:right", "--interpreter", "grad_kam"),
            "did you mean 'grad_cam'",
        ),
        ((*DIGITS, "--noticing", "8"), "--noticing must be an eps above 0 and at most 1"),
        ((*DIGITS, "--out", __file__), "is a file; --out must be a folder"),
        (("serve", "nowhere"), "no study in 'nowhere'"),
        (("serve", "nowhere", "--host", ""), "--host is empty"),
        (("withdraw", "nowhere", "Ada"), "no study in 'nowhere'"),
        (("report", "nowhere"), "no study in 'nowhere'"),
    ],
)
def test_bad_input_is_one_line(study: Callable[..., tuple[int, str, str]], arguments: Any, says: str) -> None:
    code, shown, said = study(*arguments)
    assert (code, shown, said.count("\n")) == (2, "", 1) and says in said, said
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot read --statement s.txt: No such file"), (b"\xff", "UTF-8"), (b" ", "1 to 20000 characters")],
)
def test_a_statement_must_be_a_text(
    study: Callable[..., tuple[int, str, str]], made: Callable[..., Any], content: bytes | None, says: str
) -> None:
    made()
    if content is not None:
        Path("s.txt").write_bytes(content)
    code, _, said = study("serve", "study", "--statement", "s.txt")
    assert code == 2 and says in said and said.count("\n") == 1 and not Path("study/answers.sqlite").exists()


def test_small_images_are_enlarged_smoothly() -> None:
    image = torch.zeros(1, 8, 8)
    image[:, :, 4:] = 1
    large = enlarged(image)
    assert large.shape == (1, 320, 320) and len(large.unique()) > 20  # a mosaic has two values
    assert large[0, :, 40] == pytest.approx(0, abs=1e-3) and large[0, :, -40] == pytest.approx(1, abs=1e-3)
    assert enlarged(torch.zeros(3, 400, 320)).shape == (3, 400, 320)


def test_a_port_in_use_is_said(study: Callable[..., tuple[int, str, str]], made: Callable[..., Any]) -> None:
    made()
    with socket.create_server(("127.0.0.1", 0)) as busy:
        code, _, said = study("serve", "study", "--port", busy.getsockname()[1])
    assert code == 2 and "cannot listen on 127.0.0.1" in said and "--port" in said


@pytest.mark.slow
def test_serve_until_it_is_stopped(made: Callable[..., Any]) -> None:
    made()
    command = [str(Path(sys.executable).parent / "underfire"), "study", "serve", "study", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(url, timeout=10) as page:
        assert b"What does the program see?" in page.read()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0, said
    assert "stopped with 0 answers; next: underfire study report study" in said and "Traceback" not in said


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_a_host_that_is_not_here_is_said(
    study: Callable[..., tuple[int, str, str]], made: Callable[..., Any], host: str
) -> None:
    made()
    code, _, said = study("serve", "study", "--host", host, "--port", 0)
    assert code == 2 and f"cannot listen on {host}" in said and said.strip().endswith("choose another with --host")


def test_a_study_without_all_its_pictures_is_not_served(
    study: Callable[..., tuple[int, str, str]], made: Callable[..., Any]
) -> None:
    made().picture(3, "map").unlink()
    code, _, said = study("serve", "study")
    assert code == 2 and "1 of 72 pictures are missing, such as" in said and "0003.map.png" in said


def test_an_interpreter_without_maps_makes_no_study(study: Callable[..., tuple[int, str, str]]) -> None:
    ask = ("prepare", "digits:", "--model", "python:victims:right", "--interpreter", "prototypes")
    code, _, said = study(*ask)
    assert code == 2 and "prototypes gives examples, and only maps can be used here" in said
