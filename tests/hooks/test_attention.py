"""Attention by its parts equals attention as a whole, in every form in which torch computes it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from tests.networks import randn
from underfire.hooks.attention import PRIMITIVES, explicit_attention
from underfire.hooks.rectifiers import name_of


class Parts(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        def primitive(name, *values):
            self.seen.append(name)
            return PRIMITIVES[name](*values)

        return explicit_attention(name_of(func), func, args, kwargs or {}, primitive)


Q, K, V = (randn(2, 4, n, 6, seed=seed, dtype=torch.float64) for seed, n in ((0, 5), (1, 7), (2, 7)))
MASK = randn(5, 7, seed=3) > -0.5


@pytest.mark.parametrize(
    ("tensors", "options"),
    [
        ((Q, K, V), {}),
        ((Q, K, V), {"attn_mask": MASK}),
        ((Q, K, V), {"attn_mask": randn(2, 1, 5, 7, dtype=torch.float64), "scale": 0.7}),
        ((Q, K, V), {"is_causal": True}),
        ((Q, K[:, :2], V[:, :2]), {"enable_gqa": True}),
    ],
)
def test_a_kernel(tensors, options):
    wanted = F.scaled_dot_product_attention(*tensors, **options)
    with Parts() as parts:
        assert torch.allclose(F.scaled_dot_product_attention(*tensors, **options), wanted)
    assert parts.seen == ["matmul", "softmax", "matmul"]


@pytest.mark.parametrize("options", [{}, {"batch_first": True}, {"bias": False}, {"kdim": 3, "vdim": 5}])
@pytest.mark.parametrize("masked", [False, True])
def test_a_module(options, masked):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(8, 2, **options).double().eval()
    sizes = (8, options.get("kdim", 8), options.get("vdim", 8))
    q, k, v = (randn(4, 4, size, seed=i, dtype=torch.float64) for i, size in enumerate(sizes))
    last = torch.arange(4) == 3
    given = {"attn_mask": torch.ones(4, 4).triu(2) > 0, "key_padding_mask": last.expand(4, 4)} if masked else {}
    for asked in ({"need_weights": False}, {}, {"average_attn_weights": False}):
        wanted = module(q, k, v, **given, **asked)
        with Parts() as parts:
            found = module(q, k, v, **given, **asked)
        for one, other in zip(found, wanted, strict=True):
            assert (one is None and other is None) or torch.allclose(one, other)
        assert parts.seen == ["linear"] * 3 + ["matmul", "softmax", "matmul", "linear"]
