"""Read a method and its options from the command line, and check them like an entry of a spec."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from underfire.catalog import Card, find
from underfire.errors import InputError, shown

if TYPE_CHECKING:
    from underfire.audit.spec import AttackSpec, InterpreterSpec
    from underfire.model import Classifier

_FLAGS = ("goal", "interpreter", "label", "name")  # these are not options of a method
_TEXTS = (str, str | None)
_SEVERAL_TEXTS = (str | tuple[str, ...], str | tuple[str, ...] | None)
_PART = re.compile(r"""\s*("[^"]*"|'[^']*'|[^,]+)""")  # a text of a list, in quotation marks if it has a comma


def typed(card: Card, settings: Sequence[str], more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Parse settings `name=value`, each value as YAML: `true`, `null`, `3`, `[1, 2]` or a text.

    The value of a text option is not parsed, so that a layer may have the name `4`. Where an option may be several
    texts, they are written as a list in brackets.

    Args:
        card: the method.
        settings: the texts.
        more: the types of further options, by name.

    Raises:
        InputError: a setting is not `name=value`, has a flag of its own, or is given twice.
    """
    import yaml

    from underfire.audit.yaml_files import read_yaml

    hints = {**card.hints, **(more or {})}
    given: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"--set must be name=value, got {shown(setting)}")
        if name in _FLAGS and (card.kind == "attack" or name not in card.options):
            raise InputError(f"{name!r} cannot be set by --set; it has its own flag, see --help")
        if name in given:
            raise InputError(f"option {name!r} is given twice")
        hint = hints.get(name)
        if hint in (*_TEXTS, *_SEVERAL_TEXTS) and text != "null":
            several = hint in _SEVERAL_TEXTS and text.startswith("[") and text.endswith("]")
            given[name] = [part.strip(" '\"") for part in _PART.findall(text[1:-1])] if several else text
            continue
        try:
            given[name] = read_yaml(text)
        except (yaml.YAMLError, RecursionError):
            given[name] = text
    return given


def defended(model: Classifier, texts: Sequence[str]) -> Classifier:
    """Return a model behind defences, each a name or a mapping as YAML, such as `{name: jpeg, quality: 50}`.

    Raises:
        InputError: a text is neither, or there is no such defence or option.
    """
    import yaml

    from underfire.audit.yaml_files import read_yaml
    from underfire.defenses import defend

    entries = []
    for text in texts:
        try:
            entries.append(read_yaml(text))
        except (yaml.YAMLError, RecursionError):
            raise InputError(f"--defense must be a name or {{name: jpeg, quality: 50}}, got {shown(text)}") from None
    return defend(model, entries)


def attack(name: str, settings: Sequence[str], **flags: Any) -> AttackSpec:
    """Return the attack `name` at one size, with its options checked.

    Args:
        name: an attack of the catalogue.
        settings: the values of `--set`.
        flags: the values of `norm`, `eps`, `steps`, `goal` and `interpreter`; None where a flag is not given.

    Raises:
        InputError: there is no such attack or option, or a value is wrong; the message suggests the nearest one.
    """
    from underfire.audit.spec import parse_attack

    done = parse_attack(_with_flags(find("attack", name), settings, flags))
    if len(done.eps) != 1:
        raise InputError(f"eps must be one size here, got {len(done.eps)}: {shown(done.eps)}")
    return done


def interpreter(name: str, settings: Sequence[str] = (), *, maps_only: bool = True) -> InterpreterSpec:
    """Return the interpreter `name`, with its options checked.

    Raises:
        InputError: there is no such interpreter or option, a value is wrong, or with `maps_only` it returns no maps.
    """
    from underfire.audit.spec import parse_interpreter

    return parse_interpreter(_with_flags(find("interpreter", name), settings, {}), maps_only=maps_only)


def _with_flags(card: Card, settings: Sequence[str], flags: dict[str, Any]) -> dict[str, Any]:
    """Return the settings and the flags together as an entry of a spec."""
    given = typed(card, settings)
    for flag, value in flags.items():
        if value is None:
            continue
        if flag in given:
            raise InputError(f"option {flag!r} is given twice, by --{flag} and by --set")
        given[flag] = value
    return {"name": card.name, **given}
