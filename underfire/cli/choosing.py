"""Build the spec of `underfire audit` from a file and the options of the command line, and write template specs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underfire.cli.shared import ERR, OUT, atomic_write_all, device, output_of
from underfire.errors import InputError

if TYPE_CHECKING:
    from underfire.audit.spec import AuditSpec

IMAGES = 100
"""The number of images of an audit without a spec, if there are more."""


@dataclass(frozen=True)
class Choice:
    """The options of the command line for an audit; an option that is not given is None or an empty tuple.

    Attributes:
        path: the file of the spec.
        model: the URI of the model.
        data: the URI of the data.
        n: the number of images.
        attacks: names of the attacks.
        interpreters: names of the interpreters.
        seed: the seed of everything random.
        device: where to compute.
        executor: the name of the executor that computes the cells.
        output: how the logits of the model are read.
    """

    path: Path | None
    model: str | None = None
    data: str | None = None
    n: int | None = None
    attacks: tuple[str, ...] = ()
    interpreters: tuple[str, ...] = ()
    seed: int | None = None
    device: str | None = None
    executor: str | None = None
    output: str | None = None

    @property
    def name(self) -> str:
        """The name of the run: the name of the file or of the model, or `default`."""
        if self.path is not None or self.model is None:
            return self.path.stem if self.path else "default"
        return re.sub(r"[^\w.-]+", "-", self.model.partition("?")[0]).strip("-.") or "model"

    def spec(self, quiet: bool) -> AuditSpec:
        """Return the spec of the file, or the default spec without a file, changed by the given options.

        For `model` and `data` without a file, it is the template of `underfire init` without the methods that the model
        does not support.

        Raises:
            InputError: an option is wrong, or of `model` and `data` only one is given without a file.
        """
        from underfire.audit.spec import load_spec, parse_spec, read_yaml
        from underfire.audit.templates import builtin_spec, template

        if self.seed is not None and self.seed < 0:
            raise InputError(f"--seed should be 0 or more, got {self.seed}")
        own = self.path is None and (self.model is not None or self.data is not None)
        if own and (self.model is None or self.data is None):
            missing = "--model" if self.model is None else "--data"
            raise InputError(f"without a spec, an audit needs --model and --data; {missing} is missing")
        if own:
            plain: dict[str, Any] = read_yaml(template())
        else:
            plain = (builtin_spec() if self.path is None else load_spec(self.path)).model_dump()
        if self.model is not None:
            plain["model"] = {"uri": self.model}
        if self.output is not None:
            plain["model"]["output"] = output_of(self.output)
        if self.data is not None:
            plain["data"] = {"uri": self.data, "n": None if own else plain["data"]["n"]}
        if self.n is not None:
            plain["data"]["n"] = self.n
        if self.attacks:
            plain["attacks"], plain["gates"] = list(self.attacks), []
        if self.interpreters:
            plain["interpreters"] = list(self.interpreters)
        if self.device is not None:
            plain["device"] = device(self.device)
        changes = {"seeds": None if self.seed is None else [self.seed], "executor": self.executor}
        spec = parse_spec({**plain, **{key: value for key, value in changes.items() if value is not None}})
        return _fitting(spec, self, quiet) if own else spec


def _fitting(spec: AuditSpec, choice: Choice, quiet: bool) -> AuditSpec:
    """Return the spec with at most `IMAGES` images, and without usual methods that the model does not support."""
    from underfire.audit.spec import parse_spec
    from underfire.audit.target import open_target
    from underfire.audit.templates import usual_methods

    target, plain = open_target(spec), spec.model_dump()
    if choice.n is None:
        plain["data"]["n"] = min(IMAGES, len(target.data))
    usual = usual_methods(target.model, target.preview.first.to(spec.device))
    if not choice.attacks:
        plain["attacks"] = usual.attacks
    if not choice.interpreters:
        plain["interpreters"] = usual.interpreters
    for title, reason in usual.left_out.items() if not quiet else ():
        ERR.print(f"left out: {title}: {reason}")
    return parse_spec(plain)


def write_template(path: Path, model: str | None, data: str | None, force: bool, output: str | None = None) -> None:
    """Write the template of a spec to `path`.

    Raises:
        InputError: the file exists already, and `force` is not given.
    """
    from underfire.audit.templates import template

    with atomic_write_all(path.parent, [path.name], force=force) as staging:
        (staging / path.name).write_text(template(model, data, output_of(output)), encoding="utf-8")
    OUT.print(f"{path}: change it, and run: underfire audit {path}", soft_wrap=True)
