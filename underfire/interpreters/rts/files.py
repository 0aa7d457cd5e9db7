"""Read and write masking models of real-time saliency, and checkpoints of their training, as safetensors files."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from underfire import models
from underfire.errors import InputError, ModelError
from underfire.files import atomic_write
from underfire.hooks import unwrap
from underfire.interpreters.rts.loss import Terms
from underfire.interpreters.rts.network import MaskingModel
from underfire.model import Classifier

EMBEDDED = Path(__file__).parent / "weights"
# For each model: address and version of its tensors, and the fingerprint that belongs to them.
_SEEN: WeakKeyDictionary[nn.Module, tuple[tuple[Any, ...], str]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Trained:
    """A masking model that was trained for one classifier.

    Attributes:
        network: the masking model.
        layers: names of the layers of the classifier that it reads, the coarsest first.
        fingerprint: the fingerprint of the classifier.
        terms: the weights of the objective that it was trained with.
    """

    network: MaskingModel
    layers: tuple[str, ...]
    fingerprint: str
    terms: Terms


def fingerprint(model: nn.Module) -> str:
    """Return a SHA-256 of a classifier's parameters and normalisation, the same in float32 and in float64.

    The fingerprint is remembered until a tensor of the model changes.
    """
    core = unwrap(model)
    tensors = [*core.parameters(), *core.buffers(), *(getattr(model, k) for k in ("mean", "std") if hasattr(model, k))]
    now = tuple((t.data_ptr(), t._version) for t in tensors)
    if model not in _SEEN or _SEEN[model][0] != now:
        if any(t.is_floating_point() and t.dtype != torch.float32 for t in tensors):
            core = copy.deepcopy(core).float()
        shift = {key: getattr(model, key).flatten().tolist() for key in ("mean", "std") if hasattr(model, key)}
        _SEEN[model] = now, models.fingerprint(Classifier(core, **shift))
    return _SEEN[model][1]


def write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """Write a safetensors file; an interrupted call leaves no incomplete file under this name."""
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    with atomic_write(path) as part:
        save_file(plain, part, metadata=dict(facts))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file; raise InputError if it is missing or damaged."""
    if not path.is_file():
        raise InputError(f"there is no weights file {str(path)!r}")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise InputError(f"{str(path)!r} is not a whole safetensors file: {error}".splitlines()[0]) from error


def save(trained: Trained, path: Path) -> None:
    """Write a masking model in float32; the metadata hold the fingerprint, the sizes of the layers and the terms."""
    network = trained.network
    shape = {
        "layers": list(trained.layers),
        "channels": list(network.channels),
        "classes": network.classes,
        "width": network.width,
    }
    facts = {"interpreter": "rts", "fingerprint": trained.fingerprint, "shape": json.dumps(shape)}
    facts["terms"] = json.dumps(asdict(trained.terms))
    state = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    write(path, {key: value.float() for key, value in state.items()}, facts)


def load(path: Path) -> Trained:
    """Read a masking model from a file that `save` wrote, and set it to evaluation mode.

    Raises:
        InputError: there is no such file, or it is damaged or of another kind.
    """
    with _opened(path) as file:
        facts = file.metadata() or {}
        if facts.get("interpreter") != "rts":
            raise InputError(f"{str(path)!r} has no weights of rts; `underfire train rts` makes them")
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    try:
        shape = json.loads(facts["shape"])
        with torch.random.fork_rng(devices=[]):
            network = MaskingModel(shape["channels"], shape["classes"], shape["width"])
        missing = network.load_state_dict(state, strict=False).missing_keys
        if wrong := [key for key in missing if not key.endswith("num_batches_tracked")]:
            raise KeyError(wrong[0])
        terms = Terms(**json.loads(facts.get("terms", "{}")))
        done = Trained(network.requires_grad_(False).eval(), tuple(shape["layers"]), facts["fingerprint"], terms)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{str(path)!r} is damaged: {error}".splitlines()[0]) from error
    return done


def embedded(mark: str) -> Trained | None:
    """Return the masking model that comes with the package for the classifier with this fingerprint, or None."""
    for path in sorted(EMBEDDED.glob("rts_*.safetensors")):
        with _opened(path) as file:
            fits = (file.metadata() or {}).get("fingerprint") == mark
        if fits:
            return load(path)
    return None


def check_classifier(trained: Trained, model: nn.Module, source: str) -> None:
    """Raise ModelError if a masking model was trained for another classifier; `source` names it in the message."""
    mark = fingerprint(model)
    if mark != trained.fingerprint:
        raise ModelError(
            f"{source} explains the classifier with fingerprint {trained.fingerprint[:12]}, not this one, "
            f"{mark[:12]}; train rts for it: `underfire train rts --model ... --data ... --out FILE`"
        )


# --- checkpoints -----------------------------------------------------------------------------------------------------


def write_checkpoint(
    path: Path, network: nn.Module, adam: torch.optim.Adam, step: int, facts: Mapping[str, str]
) -> None:
    """Write a checkpoint: network, state of Adam and `facts` of a training, after `step` steps."""
    memory = {
        f"adam.{i}.{name}": value for i, state in adam.state_dict()["state"].items() for name, value in state.items()
    }
    tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
    write(path, tensors | memory, {**facts, "step": str(step)})


def read_checkpoint(path: Path, network: nn.Module, adam: torch.optim.Adam, facts: Mapping[str, str]) -> int:
    """Load a checkpoint into the network and its optimizer, and return the number of steps done.

    Raises:
        InputError: the checkpoint is damaged, or of a training with other facts.
    """
    with _opened(path) as file:
        found = file.metadata() or {}
        for name, value in facts.items():
            if found.get(name) != value:
                raise InputError(f"checkpoint {str(path)!r} is of another training: its {name} differs; remove it")
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    memory: dict[int, dict[str, Tensor]] = {}
    try:
        network.load_state_dict(
            {key.removeprefix("network."): value for key, value in tensors.items() if key.startswith("network.")}
        )
        for key, value in tensors.items():
            if key.startswith("adam."):
                _, i, name = key.split(".")
                memory.setdefault(int(i), {})[name] = value
        adam.load_state_dict({"state": memory, "param_groups": adam.state_dict()["param_groups"]})
        return int(found["step"])
    except (KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"checkpoint {str(path)!r} is damaged; remove it: {error}".splitlines()[0]) from error
