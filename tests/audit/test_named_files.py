"""The content of a file that an option names is in the keys of the cells that depend on it, and in no others."""

import pytest
from PIL import Image

from underfire.audit.named_files import with_files
from underfire.audit.plan import plan
from underfire.audit.schema import AttackSpec
from underfire.audit.target import open_target
from underfire.audit.values import fingerprint
from underfire.interpreters import RTS


def keys(cells):
    return {(cell.kind, cell.about.get("label") or cell.about.get("interpreter")): cell.key for cell in cells}


@pytest.mark.parametrize("target", ['picture("{}")', {"picture": "{}"}], ids=["call", "mapping"])
def test_another_picture_at_the_same_path_makes_the_attack_run_again(small, tmp_path, target):
    file = tmp_path / "arrow.png"
    written = target.format(file) if isinstance(target, str) else {"picture": str(file)}
    aimed = {"name": "adv2", "interpreter": "gradient", "eps": 0.1, "target": written, "resize": True}
    Image.new("L", (4, 4), 255).save(file)
    spec = small(attacks=[aimed, {"name": "pgd", "eps": 0.1}], gallery=0)
    opened = open_target(spec)
    before = keys(plan(spec, opened))
    assert before == keys(plan(spec, opened))
    Image.new("L", (4, 4), 128).save(file)
    after = keys(plan(spec, opened))
    changed = {name for name, key in before.items() if after[name] != key}
    assert {label for kind, label in changed if kind == "craft"} == {spec.attacks[0].title}
    assert ("clean", None) not in changed


def test_other_weights_at_the_same_path_make_the_maps_anew(small, tmp_path):
    file = tmp_path / "rts.safetensors"
    file.write_bytes(b"one")
    spec = small(interpreters=[{"name": "rts", "weights": str(file)}], gallery=0)
    opened = open_target(spec)
    before = [cell.key for cell in plan(spec, opened) if cell.kind == "explain"]
    file.write_bytes(b"two")
    after = [cell.key for cell in plan(spec, opened) if cell.kind == "explain"]
    assert before and not set(before) & set(after)


def test_options_without_files_stay_as_they_are():
    entry = AttackSpec(name="pgd", move="momentum(0.9)", views=["(", "x" * 5000, "nul\0"], steps=3)
    assert with_files({"a": 1}, entry) == {"a": 1}


def test_an_object_that_names_a_file_has_another_fingerprint_after_a_change(tmp_path):
    file = tmp_path / "rts.safetensors"
    marks = []
    for content in (b"one", b"one", b"two"):
        file.write_bytes(content)
        marks.append(fingerprint(RTS(weights=str(file))))
    assert marks[0] == marks[1] != marks[2]
