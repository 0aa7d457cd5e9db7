"""A small prepared study of four classes, its server, and a way to ask it."""

from __future__ import annotations

import http.client
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from underfire import figures
from underfire.study.attacked import CHOICES
from underfire.study.design import Item, Study, choices_of, picture_name
from underfire.study.store import AnswerStore

CLASSES = {2: "cat", 5: "dog", 6: "hen", 9: "owl"}


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Study]:
    """Makes a study whose model is right about three images of four."""

    def make(n: int = 32, practice: int = 4, folder: str = "study", labelled: bool = True, **about: Any) -> Study:
        classes = list(CLASSES)
        items = []
        for i in range(n + practice):
            said = classes[i % 4]
            label = classes[(i + (i // 4 % 4 == 0)) % 4]
            items.append(Item(f"image {i}", label if labelled else None, said, 0.9, signed=False))
        about = {"model": "toy", "interpreter": "gradient", "options": {}, "data": "nowhere", **about}
        study = Study(tmp_path / folder, about, 0, choices_of(CLASSES), tuple(items), practice)
        (study.folder / "pictures").mkdir(parents=True)
        draw = torch.Generator().manual_seed(0)
        for i in range(n + practice):
            image = torch.rand(3, 8, 8, generator=draw)
            figures.save(image, study.folder / picture_name(i, "image"), at_least=64)
            figures.save(figures.heatmap(image[:1], image), study.folder / picture_name(i, "map"), at_least=64)
        study.write(study.folder)
        return study

    return make


@pytest.fixture
def made_noticing(tmp_path: Path) -> Callable[..., Study]:
    """Makes a study of noticing, of the maps alone, whose maps differ from the clean ones as told by condition."""

    def make(ious: dict[str, float], n: int = 30, practice: int = 3) -> Study:
        about = {"model": "toy", "interpreter": "gradient", "options": {}, "data": "nowhere", "eps": 0.1}
        items = tuple(
            Item(f"image {i}", 0, 0, 0.9, name, f"class {i}", iou, signed=False)
            for i in range(n + practice)
            for name, iou in ious.items()
        )
        study = Study(tmp_path / "study", about, 0, CHOICES, items, practice, noticing=True, with_image=False)
        (study.folder / "pictures").mkdir(parents=True)
        for i in range(len(items)):
            grey = torch.full((1, 2, 2), i / len(items))
            figures.save(grey, study.folder / picture_name(i, "map"), at_least=4)
        study.write(study.folder)
        return study

    return make


class Server:
    """A study served by uvicorn in a thread."""

    def __init__(self, study: Study, clock: Callable[[], float] = time.monotonic, statement: str = "") -> None:
        uvicorn = pytest.importorskip("uvicorn", reason="needs the extra: pip install starlette uvicorn")
        from underfire.study.app import application

        self.study, self.store = study, AnswerStore(study.folder)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        app = application(study, self.store, statement=statement, clock=clock)
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", lifespan="off"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        self.socket.close()
        self.store.close()

    def request(
        self, method: str, path: str, content: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, content and headers of an answer."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        body = content if isinstance(content, bytes) or content is None else json.dumps(content).encode()
        line.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
        answer = line.getresponse()
        found = answer.status, answer.read(), dict(answer.getheaders())
        line.close()
        return found

    def ask(self, method: str, path: str, content: dict[str, Any] | None = None) -> bytes:
        """What a good request gives."""
        status, found, _ = self.request(method, path, content)
        assert status == 200, found
        return found


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Serves studies until the test ends."""
    servers: list[Server] = []

    def go(study: Study, clock: Callable[[], float] = time.monotonic, statement: str = "") -> Server:
        servers.append(Server(study, clock, statement))
        return servers[-1]

    yield go
    for server in servers:
        server.stop()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def in_a_folder_with_victims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Works in an empty folder, from which the module `victims` of the tests of the command line can be imported."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "cli")
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("victims", None)


@pytest.fixture
def server(made: Callable[..., Study], serve: Callable[..., Server], clock: Clock) -> Server:
    """A server of a study of eight images."""
    return serve(made(n=8), clock)
