"""The base class of networks that are trained for a defence: their files, and how a defence gets one."""

from __future__ import annotations

import json
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor, nn

from underfire.errors import InputError, ModelError, NotFitted
from underfire.files import as_path
from underfire.learning import read_tensors, write_tensors
from underfire.validate import at_least_one


class DefenseNetwork(nn.Module):
    """A network that changes images; a subclass defines `clean`, and its constructor takes the sizes of its layers.

    Args:
        sizes: the arguments of the constructor, whole numbers by name, which a file keeps; one is `channels`.
    """

    defense: ClassVar[str]
    """The name of the defence in the catalogue."""

    def __init__(self, **sizes: int) -> None:
        at_least_one(**sizes)
        super().__init__()
        self.sizes = sizes

    def clean(self, x: Tensor, generator: Generator | None) -> Tensor:
        """Return the changed images `[B, C, H, W]`."""
        raise NotImplementedError

    def forward(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """Return the changed images `[B, C, H, W]` in the dtype of `x`, computed in float32 or float64."""
        like = next(self.parameters())
        if x.dim() != 4 or x.shape[1] != self.sizes["channels"]:
            wanted = f"images of {self.sizes['channels']} channels"
            raise ModelError(f"the weights of {self.defense} are for {wanted}, got a tensor {tuple(x.shape)}")
        wide = torch.promote_types(torch.float32, x.dtype)
        if like.dtype != wide or like.device != x.device:
            with torch.inference_mode(False):
                self.to(x.device, wide)
        return self.clean(x.to(wide), generator).to(x.dtype)

    def save(self, path: str) -> None:
        """Write the weights and the sizes to a safetensors file."""
        facts = {"defense": self.defense, "sizes": json.dumps(self.sizes)}
        write_tensors(as_path(path), self.state_dict(), facts)

    @classmethod
    def of(cls, weights: str | Self | None) -> Self:
        """Return a trained network, in evaluation mode: itself, or that of a file.

        Raises:
            NotFitted: `weights` is None; the message names the command that trains the network.
            InputError: there is no such file, or it is damaged or of another defence.
        """
        name = cls.defense
        if weights is None:
            raise NotFitted(
                f"{name} has no weights; train them with `underfire train {name} --data ... --out FILE`, and pass "
                "weights=FILE"
            )
        network = weights if isinstance(weights, cls) else cls._load(str(weights))
        return network.requires_grad_(False).eval()

    @classmethod
    def _load(cls, path: str) -> Self:
        tensors, facts = read_tensors(as_path(path))
        if (found := facts.get("defense")) != cls.defense:
            said = f"weights of {found}" if found else "no weights of a defence"
            raise InputError(f"{path!r} holds {said}; `underfire train {cls.defense}` makes those of {cls.defense}")
        try:
            with torch.device("meta"):  # the layers need no weights of their own
                network = cls(**{name: int(size) for name, size in json.loads(facts["sizes"]).items()})
            network.load_state_dict(tensors, assign=True)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(f"{path!r} is damaged: {' '.join(str(error).split())[:200]}") from None
        return network
