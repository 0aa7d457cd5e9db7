"""Specs: what is wrong is said in one line that names the key; what is right comes back complete."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from underfire.audit.spec import load_spec, number, parse_spec
from underfire.errors import SpecError

Content = Callable[..., dict[str, Any]]
PGD = {"name": "pgd"}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"modle": "zoo:x"},
            "unknown key 'modle'; did you mean 'model'? Choices: attacks, batch_size, data, detectors, ",
        ),
        ({"modle": "zoo:x", "model": None}, "unknown key 'modle'; did you mean 'model'?"),
        ({"model": None}, "'model' is missing"),
        ({"model": {"uri": "zoo:x", "maen": 0.5}}, "unknown key 'model.maen'; did you mean 'mean'?"),
        ({"model": {"uri": "zoo:x", "mean": "grey"}}, "'model.mean' should be a valid number, got 'grey'"),
        ({"model": 3}, "'model' should be a mapping of keys, got 3"),
        ({"data": {"uri": "digits:", "n": "many"}}, "'data.n' should be a valid integer, got 'many'"),
        ({"data": {"uri": "digits:", "n": 0}}, "'data.n' should be greater than or equal to 1, got 0"),
        ({"attacks": []}, "'attacks' is an empty list; give at least one"),
        ({"attacks": "pgd"}, "'attacks' should be a valid list, got 'pgd'"),
        ({"attacks": [3]}, "'attacks[0]' should be a mapping of keys, got 3"),
        ({"attacks": ["pdg"]}, "'attacks[0].name': unknown attack 'pdg'; did you mean 'pgd'?"),
        ({"attacks": [{"nmae": "pgd"}]}, "'attacks[0].name' is missing"),
        ({"attacks": [PGD, {**PGD, "epss": 1}]}, "unknown key 'attacks[1].epss'; did you mean 'eps'?"),
        ({"attacks": [{**PGD, "stpes": 1}]}, "unknown key 'attacks[0].stpes'; did you mean 'steps'?"),
        (
            {"attacks": [{**PGD, "objective": "dlrs"}]},
            "'attacks[0].objective': unknown objective 'dlrs'; did you mean 'dlr'?",
        ),
        ({"attacks": [{**PGD, "eps": -1}]}, "'attacks[0].eps[0]' should be greater than or equal to 0, got -1"),
        ({"attacks": [{**PGD, "eps": [0.1, "-8/255"]}]}, "'attacks[0].eps[1]' should be greater than or equal to 0"),
        ({"attacks": [{**PGD, "eps": [0.1, "big"]}]}, "'attacks[0].eps[1]' should be a valid number, got 'big'"),
        ({"attacks": [{**PGD, "eps": "1/0"}]}, "'attacks[0].eps[0]' should be a valid number, got '1/0'"),
        ({"attacks": [{**PGD, "eps": float("nan")}]}, "'attacks[0].eps[0]' should be a finite number, got nan"),
        ({"attacks": [{**PGD, "eps": [0.1, 0.1]}]}, "'attacks[0].eps' holds a size twice: [0.1, 0.1]"),
        ({"attacks": [{**PGD, "steps": 0}]}, "'attacks[0].steps' should be at least 1, got 0"),
        ({"attacks": [{**PGD, "steps": "ten"}]}, "'attacks[0].steps' should be a whole number, got 'ten'"),
        ({"attacks": [{**PGD, "steps": 1.5}]}, "'attacks[0].steps' should be a whole number, got 1.5"),
        ({"attacks": [{**PGD, "random_start": "no"}]}, "'attacks[0].random_start' should be true or false, got 'no'"),
        (
            {"attacks": [{**PGD, "keep": "bset"}]},
            "'attacks[0].keep' should be 'last' or 'best' or 'success', got 'bset'",
        ),
        ({"attacks": [{**PGD, "norm": "l7"}]}, "'attacks[0].norm': pgd has no norm 'l7'; did you mean 'l2'?"),
        ({"attacks": [{**PGD, "goal": 1.5}]}, "'attacks[0].goal'"),
        ({"attacks": [{"name": "illc", "goal": "random-target"}]}, "'attacks[0].goal': illc has no targeted mode"),
        ({"attacks": ["pgd", "pgd"]}, "'attacks[1].label': 'pgd linf' is taken by attacks[0]; give one another label"),
        ({"attacks": ["adv2"]}, "'attacks[0].interpreter' is missing: adv2 is aimed at an explanation, one of "),
        ({"attacks": [{**PGD, "interpreter": "cam"}]}, "'attacks[0].interpreter': pgd is not aimed at an explanation"),
        (
            {"attacks": [{"name": "adv2", "interpreter": "kam"}]},
            "'attacks[0].interpreter.name': unknown interpreter 'kam'",
        ),
        ({"interpreters": ["camm"]}, "'interpreters[0].name': unknown interpreter 'camm'; did you mean 'cam'?"),
        ({"interpreters": ["cam", "cam"]}, "'interpreters[1].label': 'cam' is taken by interpreters[0]"),
        (
            {"interpreters": [{"name": "grad_cam", "layr": "x"}]},
            "unknown key 'interpreters[0].layr'; did you mean 'layer'?",
        ),
        (
            {"interpreters": [{"name": "grad_cam", "layer": 3}]},
            "'interpreters[0].layer' should be a text or a list, got 3",
        ),
        ({"seeds": []}, "'seeds' is an empty list; give at least one"),
        ({"seeds": [1, 1]}, "'seeds' holds a seed twice: [1, 1]"),
        ({"seeds": 1}, "'seeds' should be a valid list, got 1"),
        ({"masking": "yes"}, "'masking' should be a valid boolean, got 'yes'"),
        ({"batch_size": 0}, "'batch_size' should be greater than or equal to 1, got 0"),
        ({"batch_size": 10**30}, "'batch_size' should be less than or equal to 1000000000, got 10000"),
        ({"shard_size": 2**64}, "'shard_size' should be less than or equal to 1000000000, got 184"),
        ({"seeds": [2**63]}, "'seeds[0]' should be less than 9223372036854775808, got 922"),
        ({"seeds": [16**5000]}, "'seeds[0]' should be less than 9223372036854775808, got a whole number of more than"),
        ({"seeds": ["2001-99-99"]}, "'seeds[0]' should be a valid integer, got '2001-99-99'"),
        (
            {"attacks": [{**PGD, "steps": 10**30}]},
            "'attacks[0].steps' should be a whole number of at most 64 bits, got 1",
        ),
        (
            {"attacks": [{**PGD, "eps": 10**5000}]},
            "'attacks[0].eps[0]' should be a valid number, got a whole number of",
        ),
        (
            {"attacks": [{**PGD, "label": "\ud800"}]},
            "'attacks[0].label' should be a text that UTF-8 can encode, got '\\ud",
        ),
        ({"attacks": ["fgsm"] * 20_000}, "'attacks' has 20000 entries; at most 1000 are possible"),
        ({"attacks": [{**PGD, "eps": [0.1] * 2000}]}, "'attacks[0].eps' has 2000 entries; at most 1000 are possible"),
        ({"attacks": ["f" * 10**6]}, "'attacks[0].name': unknown attack 'ffff"),
        ({"k" * 10**6: 1}, "unknown key 'kkkk"),
        (
            {"gates": [{"measure": "accuracy", "at_least": 1}]},
            "'gates[0].measure' should be 'clean_accuracy', 'robust_acc",
        ),
        ({"gates": [{"measure": "worst_accuracy", "at_least": 1}]}, "'gates[0].norm' is missing; the gate needs it"),
        (
            {"gates": [{"measure": "clean_accuracy", "at_least": 0.5, "eps": 1}]},
            "'gates[0].eps' has no meaning for clean_accuracy; leave it out",
        ),
        ({"gates": [{"measure": "clean_accuracy"}]}, "'gates[0].at_least' is missing; the gate needs it"),
        (
            {"gates": [{"measure": "interpretation_gap", "at_least": 0.5, "norm": "linf", "interpreter": "gradient"}]},
            "'gates[0].at_least' has no meaning for interpretation_gap; leave it out",
        ),
        (
            {"gates": [{"measure": "robust_accuracy", "at_least": 0.5, "attack": "pdg", "eps": 0.1}]},
            "'gates[0].attack': no attack has the label 'pdg'; ",
        ),
        (
            {"gates": [{"measure": "robust_accuracy", "at_least": 0.5, "attack": "pgd linf", "eps": 0.3}]},
            "'gates[0].eps': no attack has the size 0.3; choices: 0.02, 0.1",
        ),
        (
            {"gates": [{"measure": "worst_accuracy", "at_least": 0.5, "norm": "l2", "eps": 0.1}]},
            "'gates[0].norm': no attack has norm 'l2'",
        ),
        (
            {"gates": [{"measure": "map_iou", "at_least": 0.5, "attack": "pgd linf", "eps": 0.1, "interpreter": "c"}]},
            "'gates[0].interpreter': no interpreter has the label 'c'; Choices: gradient",
        ),
    ],
)
def test_a_wrong_spec_is_one_line_that_names_the_key(content: Content, changes: dict[str, Any], line: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(content(**changes))
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_defaults_are_written_out_and_the_result_is_stable(content: Content) -> None:
    aimed = {"name": "adv2", "interpreter": "mine", "goal": "random-target", "weight": [1, 2.5]}
    given = {"name": "grad_cam", "label": "mine", "layer": "1"}
    spec = parse_spec(
        content(attacks=["fgsm", {**PGD, "norm": "l2", "eps": "1/2", "step_size": "1/8"}, aimed], interpreters=[given])
    )
    fgsm, pgd, adv2 = spec.attacks
    assert (fgsm.title, fgsm.norm, fgsm.eps) == ("fgsm linf", "linf", [8 / 255])
    assert (pgd.title, pgd.eps, pgd.options) == ("pgd l2", [0.5], {"step_size": 0.125})
    assert (adv2.title, adv2.eps) == ("adv2 mine linf random-target", [0.031])
    assert adv2.interpreter is not None
    assert (adv2.interpreter.name, adv2.interpreter.options) == ("grad_cam", {"layer": "1"})
    assert parse_spec(spec.model_dump()) == spec
    assert parse_spec(yaml.safe_load(yaml.safe_dump(spec.model_dump()))) == spec


def test_an_attack_is_aimed_at_the_interpreter_of_the_spec_by_label_or_by_name(content: Content) -> None:
    for aim in ("grad_cam", "mine"):
        attacks = [{"name": "adv2", "interpreter": aim}]
        spec = parse_spec(content(attacks=attacks, interpreters=[{"name": "grad_cam", "label": "mine"}]))
        assert spec.attacks[0].interpreter == spec.interpreters[0]


def test_numbers_as_people_write_them() -> None:
    assert [number(v) for v in ("8/255", "1e-3", " -1 / 4 ", 2)] == [8 / 255, 0.001, -0.25, 2.0]
    assert [number(v) for v in ("a/b", True, None, "1/0")] == ["a/b", True, None, "1/0"]


def test_a_spec_file(tmp_path: Path, content: Content) -> None:
    path = tmp_path / "audit.yaml"
    path.write_text(yaml.safe_dump(content()))
    assert load_spec(path) == parse_spec(content())


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"model: [", "is not valid YAML, line 1, column 9: "),
        (b"n: " + b"9" * 5000, "line 1, column 4: '99"),
        (b"n: " + b"[" * 5000, "inside each other"),
        (b"n: !!int abc", "'abc' is not a value of type 'int'"),
        (b"n: !!bool abc", "'abc' is not a value of type 'bool'"),
        (b"n: !!timestamp abc", "no such value of type 'tag:yaml.org,2002:timestamp'"),
        (b"n: !!map x", "no such value of type 'tag:yaml.org,2002:map'"),
        (b"!!map [x]", "no such value of type 'tag:yaml.org,2002:map'"),
        (b"n: !!int {x: 1}", "no such value of type 'tag:yaml.org,2002:int'"),
        (b"n: !!set {a, b}", "no such value of type 'tag:yaml.org,2002:set'"),
        (b"n: !!binary x", "no such value of type 'tag:yaml.org,2002:binary'"),
        (b"n: &n [*n]", "contains itself"),
        (b"a: 1\na: 2", "line 2, column 1: the key 'a' is given twice"),
        (b"x" * 600_000, "larger than 500,000 bytes"),
        (b"n: \x00", "not allowed"),
        (b"\xff\xfe\xff", "is not a UTF-8 text file"),
        (
            b"!!python/object/apply:os.system [ls]",
            "is not valid YAML, line 1, column 1: a spec has no such value of type 'tag:yaml.org,2002:python",
        ),
    ],
)
def test_a_file_that_is_no_yaml(tmp_path: Path, text: bytes, line: str) -> None:
    path = tmp_path / "audit.yaml"
    path.write_bytes(text)
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGES = "m0: &m0 {a: 1, b: 2, c: 3}\n" + "".join(
    f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}\n" for i in range(1, 12)
)


@pytest.mark.parametrize("text", [LAUGHS, MERGES], ids=["aliases", "merge keys"])
def test_a_short_text_of_many_values_is_refused_before_they_are_made(tmp_path: Path, text: str) -> None:
    path = tmp_path / "audit.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match="100,000 keys"):
        load_spec(path)


def test_aliases_and_merge_keys_within_the_limit_work(tmp_path: Path, content: Content) -> None:
    path = tmp_path / "audit.yaml"
    attacks = "attacks: [{<<: &pgd {name: pgd, steps: 3}, eps: 0.1}, {<<: *pgd, norm: l2}]\n"
    path.write_text(yaml.safe_dump(content(attacks=None)) + attacks)
    assert [(entry.name, entry.norm, entry.options) for entry in load_spec(path).attacks] == [
        ("pgd", "linf", {"steps": 3}),
        ("pgd", "l2", {"steps": 3}),
    ]


def test_a_date_without_quotes_is_a_text(tmp_path: Path, content: Content) -> None:
    path = tmp_path / "audit.yaml"
    path.write_text(yaml.safe_dump(content(attacks=None)) + "attacks: [{name: fgsm, label: 2026-11-27}]\n")
    assert load_spec(path).attacks[0].label == "2026-11-27"


def test_a_file_without_end_is_refused() -> None:
    with pytest.raises(SpecError, match="larger than 500,000"):
        load_spec("/dev/zero")


def test_files_that_hold_no_mapping(tmp_path: Path) -> None:
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    with pytest.raises(SpecError, match="mapping .* got NoneType"):
        load_spec(empty)
    with pytest.raises(SpecError, match="nothing.yaml': No such file"):
        load_spec(tmp_path / "nothing.yaml")
