"""What the tests share: real data where it exists, and two small networks, one smooth and one with kinks."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import Tensor

from tests import skips
from tests.networks import build_network
from underfire.allocation import keep_freed_memory
from underfire.model import Classifier

ROOT = Path(__file__).resolve().parents[1]
Network = Callable[..., Classifier]
WEIGHTS = {"slow": 10, "browser": 200}  # how many other tests take as long as one with this mark

# The same examples on every machine, and no deadline: how long one takes says nothing on a busy one.
settings.register_profile("repository", deadline=None, derandomize=True, database=None)
settings.load_profile("repository")

# A search for garbage goes through everything that was imported, and nothing of that is garbage. So there is no search
# while the tests are gathered, and later ones leave out what is there by then.
gc.disable()
keep_freed_memory()


def _lacking(config: pytest.Config) -> Counter[str]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return skips.count_needs(str(report.longrepr) for report in reporter.stats.get("skipped", []))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first: a worker has one file at a time, and at the end none should wait."""
    weights: Counter[Path] = Counter()
    for item in items:
        weights[item.path] += max((WEIGHTS.get(mark.name, 1) for mark in item.iter_markers()), default=1)
    items.sort(key=lambda item: -weights[item.path])


def pytest_collection_finish() -> None:
    """Let garbage be collected again, but for what all tests share."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that left tests out for want of a tool on a machine that must have it."""
    if hasattr(session.config, "workerinput"):  # a worker of pytest-xdist: the controller counts
        return
    if skips.in_ci() and skips.not_allowed(_lacking(session.config)) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say in one line which tests were left out and how to run them."""
    lacking = _lacking(config)
    if line := skips.closing_line(lacking):
        terminalreporter.write_sep("=", "tests left out")
        terminalreporter.write_line(line)
    if skips.in_ci() and (missing := skips.not_allowed(lacking)):
        terminalreporter.write_line(f"FAILED: CI=true, and this machine lacks: {', '.join(missing)}")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data and weights; skips where it is missing."""
    root = Path(os.environ.get("UNDERFIRE_DATA") or ROOT.parent / "shared" / "data")
    if not root.is_dir():
        pytest.skip(f"needs real data: UNDERFIRE_DATA is not set to its folder, and {root} does not exist")
    return root


@pytest.fixture(autouse=True)
def _initial_weights() -> None:
    """Seed the global generator, from which torch draws the first weights of a layer; nothing else may use it.

    `torch.manual_seed` seeds every accelerator too, and formats the stack three times to do so, once per test.
    """
    torch.default_generator.manual_seed(0)


@pytest.fixture(scope="module")
def plain_convolutions() -> Iterator[None]:
    """Compute convolutions by torch's own kernels, which halves the time of a pass of a few images of 12 x 12 pixels.

    oneDNN takes longer to prepare such a convolution than to compute it. It is what the networks of the zoo, the audits
    and the command line are tested with; a contract, or what an attack finds on a tiny network, does not depend on it.
    """
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False
    yield
    torch.backends.mkldnn.enabled = before


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded generator, so that no test touches the global one."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def network() -> Network:
    """Builds a small classifier: `network("smooth", torch.float64, channels=1)`; see `build_network`."""
    return build_network


@pytest.fixture
def relu_model() -> Classifier:
    """A small ReLU classifier of images `[B, 3, H, W]`, four classes, float32."""
    return build_network("relu")


@pytest.fixture
def smooth_model() -> Classifier:
    """The same with softplus, in float64: finite differences are exact enough to judge a gradient."""
    return build_network("smooth", torch.float64)


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    """Six random images `[6, 3, 12, 12]`, float32, away from the borders of the box."""
    return 0.1 + 0.8 * torch.rand(6, 3, 12, 12, generator=generator)
