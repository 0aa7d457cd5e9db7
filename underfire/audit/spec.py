"""What an audit is, as data: read from YAML, checked against the catalogue, and complete when it is done.

Paths inside a spec are relative to the current folder. Sizes may be written as fractions: `eps: [2/255, 8/255]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from underfire.errors import SpecError, nearest

_FRACTION = re.compile(r"\s*([-+]?[\d.]+)\s*/\s*([\d.]+)\s*")


def number(value: Any) -> Any:
    """`value` as a float where it reads as one (`"8/255"`, `"1e-3"`, `2`); anything else as it is.

    >>> number("51/255")
    0.2
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return value
    try:
        fraction = _FRACTION.fullmatch(value) if isinstance(value, str) else None
        return float(fraction[1]) / float(fraction[2]) if fraction else float(value)
    except (ValueError, ZeroDivisionError):
        return value


def _short(key: str) -> Callable[[Any], Any]:
    """`text` stands for `{key: text}`."""
    return lambda value: {key: value} if isinstance(value, str) else value


Number = Annotated[float, BeforeValidator(number), Field(allow_inf_nan=False)]
Size = Annotated[Number, Field(ge=0)]
Sizes = Annotated[list[Size], BeforeValidator(lambda value: value if isinstance(value, list) else [value])]
PerChannel = Number | list[Number]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


class ModelSpec(_Strict):
    """The classifier under test; a spec may give the URI alone."""

    uri: str
    mean: PerChannel | None = None
    std: PerChannel | None = None
    labels: list[str] | None = None


class DataSpec(_Strict):
    """The images; a spec may give the URI alone. `n` images are chosen at random by `seed`; None takes them all."""

    uri: str
    n: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0


class _Method(_Strict):
    """A name of the catalogue, and any keyword of the method itself."""

    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())

    name: str
    label: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The keywords for the method itself."""
        return dict(self.model_extra or {})

    @property
    def title(self) -> str:
        """The display name: the label, or the name where none was given."""
        return self.label or self.name


class InterpreterSpec(_Method):
    """An explanation to measure; a spec may give the name alone."""


class AttackSpec(_Method):
    """An attack at one norm and one or several sizes.

    Attributes:
        norm: None in a file is the attack's first norm; never None after `complete`.
        eps: sizes in the norm; empty in a file is the attack's default; never empty after `complete`.
        goal: what it wants: any other class, a random one, or the one the model finds least likely.
        interpreter: the explanation it is aimed at, by the label of one of the spec's, or a method of its own.
    """

    norm: str | None = None
    eps: Sizes = []
    goal: Literal["untargeted", "random-target", "least-likely"] = "untargeted"
    interpreter: Annotated[InterpreterSpec, BeforeValidator(_short("name"))] | None = None


Measure = Literal["clean_accuracy", "robust_accuracy", "worst_accuracy", "map_iou"]
NEEDS: dict[Measure, tuple[str, ...]] = {
    "clean_accuracy": (),
    "robust_accuracy": ("attack", "eps"),
    "worst_accuracy": ("norm", "eps"),
    "map_iou": ("attack", "eps", "interpreter"),
}
"""What each measure of a gate must be told."""


class GateSpec(_Strict):
    """A figure that must not be lower than `at_least`; `attack` and `interpreter` are labels of the spec."""

    measure: Measure
    at_least: Number
    attack: str | None = None
    norm: str | None = None
    eps: Size | None = None
    interpreter: str | None = None


class AuditSpec(_Strict):
    """A whole audit: everything that determines its numbers."""

    model: Annotated[ModelSpec, BeforeValidator(_short("uri"))]
    data: Annotated[DataSpec, BeforeValidator(_short("uri"))]
    attacks: Annotated[list[Annotated[AttackSpec, BeforeValidator(_short("name"))]], Field(min_length=1)]
    interpreters: list[Annotated[InterpreterSpec, BeforeValidator(_short("name"))]] = []
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    gates: list[GateSpec] = []
    masking: bool = True
    gallery: Annotated[int, Field(ge=0)] = 8
    batch_size: Annotated[int, Field(ge=1)] = 64
    shard_size: Annotated[int, Field(ge=1)] = 256
    device: str = "cpu"


_PARTS: dict[str, type[_Strict]] = {
    "": AuditSpec,
    "model": ModelSpec,
    "data": DataSpec,
    "gates": GateSpec,
    "attacks": AttackSpec,
    "interpreters": InterpreterSpec,
}


def load_spec(path: str | Path) -> AuditSpec:
    """Read an audit spec from a YAML file, check it, and fill in what it left to defaults.

    Raises:
        SpecError: the file cannot be read, is not YAML, or a key or value is wrong; one line that names the key.
    """
    import yaml

    try:
        content = _read(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"cannot read the spec {str(path)!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SpecError(f"the spec {str(path)!r} is not a UTF-8 text file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = getattr(error, "problem", error)
        raise SpecError(f"the spec {str(path)!r} is not valid YAML{where}: {what}") from None
    return parse_spec(content)


def _read(text: str) -> Any:
    """The content of a YAML text in which no mapping has a key twice; YAML's own reader takes the last in silence."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key for key, _ in node.value]
            names = [str(key.value) for key in keys]
            for i, (name, key) in enumerate(zip(names, keys, strict=True)):
                if name in names[:i]:
                    raise yaml.MarkedYAMLError(problem=f"the key {name!r} is given twice", problem_mark=key.start_mark)
            return super().construct_mapping(node, deep)

    return yaml.load(text, Loader)  # noqa: S506 - a SafeLoader


def parse_spec(content: Any, *, maps_only: bool = True) -> AuditSpec:
    """Check a spec given as plain values, and fill in what it left to defaults.

    Args:
        content: the spec.
        maps_only: refuse interpreters that give something else than a map, which no audit can use.

    Raises:
        SpecError: a key or value is wrong; one line that names the key.
    """
    from underfire.audit.methods import complete

    if not isinstance(content, dict):
        raise SpecError(f"a spec is a mapping with keys such as model, data and attacks; got {type(content).__name__}")
    try:
        spec = AuditSpec.model_validate(content)
    except ValidationError as error:
        raise SpecError(_one_line(error)) from None
    return complete(spec, maps_only=maps_only)


def where(*keys: str | int) -> str:
    """The path of a key, as in `attacks[0].eps`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")


def _one_line(error: ValidationError) -> str:
    found = error.errors(include_url=False)
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])  # a misspelt key is also a missing one
    unknown = first["type"] == "extra_forbidden"
    # Where a value may have several types, pydantic names the one it tried, such as `list[float]`, as if it were a key.
    keys = tuple(key for key in first["loc"] if unknown or isinstance(key, int) or key.isidentifier())
    path = where(*keys)
    if unknown:
        owner = str(keys[0]) if len(keys) > 1 else ""
        return f"unknown key {path!r}; {nearest(str(keys[-1]), _PARTS[owner].model_fields)}"
    if first["type"] == "missing":
        return f"{path!r} is missing"
    if first["type"] == "too_short":
        return f"{path!r} is an empty list; give at least one"
    message = re.sub(r"a valid dictionary or instance of \w+", "a mapping of keys", first["msg"].removeprefix("Input "))
    return f"{path!r} {message}, got {first['input']!r}"
