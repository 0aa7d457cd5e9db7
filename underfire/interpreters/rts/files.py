"""Read and write masking models of real-time saliency as safetensors files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from underfire.errors import InputError, ModelError
from underfire.interpreters.rts.loss import Terms
from underfire.interpreters.rts.network import MaskingModel
from underfire.learning import model_fingerprint, read_facts, read_tensors, write_tensors

EMBEDDED = Path(__file__).parent / "weights"


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
    write_tensors(path, {key: value.float() for key, value in state.items()}, facts)


def load(path: Path) -> Trained:
    """Read a masking model from a file that `save` wrote, and set it to evaluation mode.

    Raises:
        InputError: there is no such file, or it is damaged or of another kind.
    """
    state, facts = read_tensors(path)
    if facts.get("interpreter") != "rts":
        raise InputError(f"{str(path)!r} has no weights of rts; `underfire train rts` makes them")
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
        if read_facts(path).get("fingerprint") == mark:
            return load(path)
    return None


def check_classifier(trained: Trained, model: nn.Module, source: str) -> None:
    """Raise ModelError if a masking model was trained for another classifier; `source` names it in the message."""
    mark = model_fingerprint(model)
    if mark != trained.fingerprint:
        raise ModelError(
            f"{source} explains the classifier with fingerprint {trained.fingerprint[:12]}, not this one, "
            f"{mark[:12]}; train rts for it: `underfire train rts --model ... --data ... --out FILE`"
        )
