"""The names of transfer attacks: how tokens combine, what contradicts, and where such a name can be written."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

import underfire as uf
from tests.networks import build_network, linear, rand, seeded
from underfire.attacks.transfer.composing import read
from underfire.attacks.transfer.tokens import TOKENS
from underfire.audit.methods import attack_of
from underfire.audit.spec import load_spec
from underfire.catalog.docstrings import cited, meanings
from underfire.errors import InputError, ModelError, SpecError, Unsupported
from underfire.gradients.backward import skip_gradient


def test_a_combination_is_a_card_that_is_not_listed() -> None:
    card = uf.find("attack", "vni_si_dim")
    assert card.name == "vni_si_dim"
    assert card.facts.random
    assert {"Wang and He 2021", "Lin et al. 2020", "Xie et al. 2019"} <= set(card.source.split("; "))
    assert "vni_si_dim" not in {other.name for other in uf.cards("attack")}
    assert uf.find("attack", "vni_si_dim") is card
    assert uf.catalog.card_of(uf.attacks.vni_si_dim) is card
    assert pickle.loads(pickle.dumps(uf.attacks.vni_si_dim)) is uf.attacks.vni_si_dim
    assert not uf.find("attack", "si_ni").facts.random


def test_the_published_names_are_listed() -> None:
    published = {"di_fgsm", "ti_fgsm", "si_fgsm", "ni_fgsm", "vmi_fgsm", "dim", "tim", "sim", "si_ni_ti_dim"}
    assert published <= {card.name for card in uf.cards("attack")} & set(dir(uf.attacks)) & set(uf.attacks.__all__)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("mi_ni_di", ["'mi'", "'ni'", "move"]),
        ("vmi_ni", ["'vmi'", "'ni'", "move"]),
        ("di_dim", ["'di'", "'dim'", "view"]),
        ("si_si", ["'si'", "twice"]),
        ("si_tin", ["'tin'", "'ti'"]),
        ("mi_fgms", ["'fgms'", "'fgsm'"]),
    ],
)
def test_tokens_that_do_not_combine_are_named(name: str, named: list[str]) -> None:
    for ask in (lambda: uf.find("attack", name), lambda: read(name)):
        with pytest.raises(InputError) as error:
            ask()
        assert all(word in str(error.value) for word in named), error.value
        assert "\n" not in str(error.value)
    with pytest.raises(AttributeError, match=named[0]):
        getattr(uf.attacks, name)


def test_a_name_without_a_token_is_no_composition() -> None:
    assert read("square_attack") == {}
    with pytest.raises(InputError, match="'square'"):
        uf.find("attack", "squares")
    assert not hasattr(uf.attacks, "squares")


def test_an_option_is_prefixed_by_its_token_only_if_two_share_its_name() -> None:
    assert {"probability", "copies", "decay"} <= set(uf.find("attack", "mi_si_di").options)
    for name in ("mi_si_di", "vt_ti_sim"):
        card = uf.find("attack", name)
        assert all(meanings(card).values()), name
    with pytest.raises(InputError, match="'copies'"):
        uf.find("attack", "mi_si").check({"copeis": 3})


def test_every_token_cites_its_source() -> None:
    for word, token in TOKENS.items():
        makers = [maker for field, maker in token.makers().items() if field != "usual_move"]
        assert word in ("fgsm", "i") or all(map(cited, makers)), word


def test_a_spec_takes_a_combination_with_options_of_its_parts(tmp_path: Path) -> None:
    text = "model: builtin:digits\ndata: digits\nattacks:\n  - {name: %s, eps: 0.1, steps: 2, %s}\n"
    spec = tmp_path / "spec.yaml"
    spec.write_text(text % ("mi_di_si", "copies: 2, probability: 1/2"))
    (entry,) = load_spec(spec).attacks
    model, x = build_network(), rand(2, 3, 8, 8)
    y = model(x).argmax(1)
    spelled = uf.find("attack", "mi_di_si")(model, x, y, eps=0.1, steps=2, copies=2, generator=seeded(1))
    assert torch.equal(attack_of(entry, 0.1)(model, x, y, generator=seeded(1)), spelled)
    for name, option, named in (("mi_di_so", "copies: 2", "'so'"), ("mi_di_si", "coppies: 2", "'copies'")):
        spec.write_text(text % (name, option))
        with pytest.raises(SpecError, match=named):
            load_spec(spec)


def test_a_spec_composes_the_new_parts_too(tmp_path: Path) -> None:
    """A recipe of parts is the attack whose tokens stand for them."""
    options = """
    views: [{name: admix, copies: 2}, spectrum_simulation(2), "block_shuffle(2, rotation=10.0)", structure_invariant(1)]
    estimate: gradient_penalty(2, radius=0.3, step=0.05)
    smooth: translation_kernel(3)
    move: momentum
    keep: last
    objective: log_odds
    eps: 0.1
    steps: 2
"""
    (tmp_path / "spec.yaml").write_text(f"model: builtin:digits\ndata: digits\nattacks:\n  - name: recipe{options}")
    (entry,) = load_spec(tmp_path / "spec.yaml").attacks
    model, x = build_network(), rand(2, 3, 8, 8)
    y = torch.tensor([0, 1])
    token = uf.attacks.admix_ssm_bsr_sia_pgn_ti
    options = {"copies": 2, "admix_samples": 3, "ssm_samples": 2, "bsr_samples": 2, "rotation": 10.0, "sia_samples": 1}
    options |= {"pgn_samples": 2, "size": 3, "eps": 0.1, "steps": 2}
    spelled = token(model, x, y, generator=seeded(1), **options)
    assert torch.allclose(attack_of(entry, 0.1)(model, x, y, generator=seeded(1)), spelled)
    with pytest.raises(Unsupported, match="residual"):
        uf.attacks.recipe(model, x, y, backward=skip_gradient(0.5))


def test_a_model_of_one_size_is_told_how_to_keep_it() -> None:
    model, x, y = linear(rand(4, 3, 8, 8)), rand(2, 3, 8, 8), torch.tensor([0, 1])
    with pytest.raises(ModelError, match=r"3, 9, 9.*keep_size"):
        uf.attacks.di_fgsm(model, x, y, probability=1.0)
    assert uf.attacks.di_fgsm(model, x, y, probability=1.0, keep_size=True).shape == x.shape


def test_images_and_a_ball_are_needed() -> None:
    model, x = build_network(), rand(2, 3, 8, 8)
    y = model(x).argmax(1)
    with pytest.raises(Unsupported, match="l1"):
        uf.attacks.mi_si(model, x, y, norm="l1")
    assert uf.find("attack", "ni").facts.domains == ("image", "table", "series")
    assert uf.find("attack", "ni_si").facts.domains == ("image",)
