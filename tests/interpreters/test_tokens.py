"""Explanations that read the tokens of transformers."""

import pytest
import torch
from torch import nn

import underfire as uf
from tests.networks import rand, randn
from underfire.attribution.feature_space import pooled_features
from underfire.attribution.scores import score
from underfire.errors import InputError, Unsupported
from underfire.hooks import Layout, last_spatial_layer, layout_of, pooled_head

FAMILY = {"grad_cam": {}, "grad_cam_pp": {}, "score_cam": {}, "smooth_grad_cam_pp": {"samples": 2}}


class Tokens(nn.Module):
    """A vision transformer: a patch embedding (a convolution or not), encoder layers, a class token or a mean."""

    def __init__(self, *, patch=4, width=8, size=(16, 24), class_token=True, convolution=True, layers=2, classes=4):
        super().__init__()
        self.patch, rows, columns = patch, size[0] // patch, size[1] // patch
        self.embed = nn.Conv2d(3, width, patch, patch) if convolution else nn.Linear(3 * patch**2, width)
        self.first = nn.Parameter(randn(1, 1, width)) if class_token else None
        self.places = nn.Parameter(randn(1, rows * columns + class_token, width))
        self.blocks = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(width, 2, 16, dropout=0, batch_first=True, norm_first=True)
                for _ in range(layers)
            )
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x):
        if isinstance(self.embed, nn.Conv2d):
            z = self.embed(x).flatten(2).transpose(1, 2)
        else:
            z = self.embed(nn.functional.unfold(x, self.patch, stride=self.patch).transpose(1, 2))
        if self.first is not None:
            z = torch.cat([self.first.expand(len(z), -1, -1), z], 1)
        z = self.norm(self.blocks(z + self.places))
        return self.head(z.mean(1) if self.first is None else z[:, 0])


class ChannelsLast(nn.Module):
    """What a Swin transformer looks like from outside: `[B, h, w, C]` between its blocks, then their mean."""

    def __init__(self, width=8, classes=4):
        super().__init__()
        self.embed = nn.Conv2d(3, width, 4, 4)
        self.block = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 12), nn.GELU(), nn.Linear(12, width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x):
        z = self.embed(x).permute(0, 2, 3, 1)
        return self.head(self.norm(z + self.block(z)).mean((1, 2)))


def test_a_transformer_behind_a_defence_that_changes_the_size_has_its_own_grid():
    net = Tokens(class_token=False)
    net.places = nn.Parameter(randn(1, 1, 8))  # of any number of tokens
    plain, x = uf.Classifier(net), rand(2, 3, 16, 24)
    padded = uf.defenses.resize_and_pad(plain, high=1.5)
    for model, grid in ((plain, (4, 6)), (padded, (6, 9)), (plain, (4, 6)), (uf.defenses.through(padded), (6, 9))):
        assert layout_of(model, x, "norm").grid == grid
        assert uf.interpreters.grad_cam(model, x, torch.tensor([0, 1])).shape == (2, 1, *grid)


@pytest.fixture
def x():
    return rand(2, 3, 16, 24, dtype=torch.float64)


def build(kind=Tokens, **options):
    torch.manual_seed(0)
    return uf.Classifier(kind(**options).double().eval())


@pytest.mark.parametrize("convolution", [True, False])
@pytest.mark.parametrize("class_token", [True, False])
def test_the_last_layer_whose_patches_count(x, class_token, convolution):
    """With a class token, the patches that leave the last block change nothing; what its attention reads does."""
    model = build(class_token=class_token, convolution=convolution)
    name = last_spatial_layer(model, x)
    assert name == ("blocks.1.norm1" if class_token else "norm")
    assert layout_of(model, x, name) == Layout("tokens", (4, 6), int(class_token))
    y = torch.tensor([0, 3])
    assert (uf.interpreters.grad_cam(model, x, y).amax((1, 2, 3)) > 0).all()
    last = uf.interpreters.grad_cam(model, x, y, layer="blocks.1")
    assert bool((last == 0).all()) == class_token


class WithoutGradient(Tokens):
    def forward(self, x):
        with torch.no_grad():
            return super().forward(x)


@pytest.mark.parametrize("class_token", [True, False])
def test_the_same_layer_is_found_without_a_gradient(x, class_token):
    model, same = build(WithoutGradient, class_token=class_token), build(class_token=class_token)
    assert last_spatial_layer(model, x) == last_spatial_layer(same, x)
    y = torch.tensor([0, 3])
    assert torch.equal(uf.interpreters.score_cam(model, x, y), uf.interpreters.score_cam(same, x, y))


@pytest.mark.parametrize("name", FAMILY)
def test_every_method_on_tokens(x, name):
    model, y = build(), torch.tensor([0, 3])
    method = uf.find("interpreter", name).with_options(**FAMILY[name])
    shown = method(model, x, y)
    assert shown.shape == (2, 1, 4, 6) and bool(torch.isfinite(shown).all()) and bool((shown > 0).any())
    assert torch.allclose(shown, torch.cat([method(model, x[i : i + 1], y[i : i + 1]) for i in range(2)]))
    point = x.clone().requires_grad_()
    with uf.hooks.shared_forward(model):
        model(point)  # an attack's own pass, whose attention must have a second derivative too
        shown = method(model, point, y)
    probe = randn(shown.shape, seed=1, dtype=torch.float64)
    (slope,) = torch.autograd.grad((probe * shown).sum(), point)
    direction = randn(x.shape, seed=2, dtype=torch.float64)
    with torch.no_grad():
        ahead, behind = (method(model, x + s * direction, y) for s in (1e-6, -1e-6))
    measured = (probe * (ahead - behind)).sum() / 2e-6
    assert torch.allclose((slope * direction).sum(), measured, rtol=1e-4)


class Pooled(Tokens):
    """A transformer without a class token that pools its patches by attention with one learned query."""

    def __init__(self, *, norm=nn.Identity, heads_first=True, width=8):
        super().__init__(class_token=False, width=width)
        self.query, self.heads_first = nn.Parameter(randn(1, 1, width, seed=3)), heads_first
        self.q, self.kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.q_norm, self.k_norm, self.drop = norm(4), norm(4), nn.Dropout(0.1)

    def forward(self, x):
        z = self.embed(x).flatten(2).transpose(1, 2)
        z = self.norm(self.blocks(z + self.places))
        q, (k, v) = self.q(self.query.expand(len(z), -1, -1)), self.kv(z).chunk(2, -1)
        q, k, v = (t.unflatten(-1, (-1, 4)) for t in (q, k, v))  # [B, N, heads, 4]
        if self.heads_first:
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        q, k = self.q_norm(q), self.k_norm(k)
        if not self.heads_first:
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        weights = self.drop((q @ k.transpose(2, 3) / 2).softmax(-1))
        return self.head(self.out((weights @ v).transpose(1, 2).flatten(1)))


@pytest.mark.parametrize("heads_first", [True, False])
@pytest.mark.parametrize("norm", [lambda width: nn.Identity(), nn.LayerNorm])
def test_a_query_that_pools_tokens_is_no_feature_map(x, norm, heads_first):
    """Nor are keys and weights of attention, normalised or not, heads first or last."""
    model, y = build(Pooled, norm=norm, heads_first=heads_first), torch.tensor([0, 3])
    assert last_spatial_layer(model, x) == "norm"
    for name, options in FAMILY.items():
        shown = uf.find("interpreter", name).with_options(**options)(model, x, y)
        assert shown.shape == (2, 1, 4, 6) and bool((shown > 0).any())
    for name in ("q_norm", "k_norm", "drop"):
        with pytest.raises(Unsupported, match=f"'{name}' gives"):
            uf.interpreters.grad_cam(model, x, y, layer=name)


class Late(Tokens):
    """A transformer whose class token joins before the last block, as in CaiT."""

    def forward(self, x):
        z = self.blocks[0](self.embed(x).flatten(2).transpose(1, 2) + self.places[:, 1:])
        z = self.norm(self.blocks[1](torch.cat([self.first.expand(len(z), -1, -1), z], 1)))
        return self.head(z[:, 0])


def test_a_class_token_that_joins_late(x):
    model, y = build(Late), torch.tensor([0, 3])
    assert last_spatial_layer(model, x) == "blocks.1.norm1"
    assert layout_of(model, x, "blocks.1.norm1") == Layout("tokens", (4, 6), 1)
    assert layout_of(model, x, "blocks.0") == Layout("tokens", (4, 6), 0)
    assert uf.interpreters.grad_cam(model, x, y, layer=("blocks.0", "blocks.1.norm1")).shape == (2, 1, 4, 6)


def test_grad_cam_of_tokens_by_hand(x):
    model, y = build(), torch.tensor([0, 3])
    body = model.module
    z = body.embed(x).flatten(2).transpose(1, 2)
    z = body.blocks[0](torch.cat([body.first.expand(2, -1, -1), z], 1) + body.places)
    z = z.detach().requires_grad_()
    logits = body.head(body.norm(body.blocks[1](z))[:, 0])
    (g,) = torch.autograd.grad(logits.gather(1, y[:, None]).sum(), z)
    maps = [t[:, 1:].reshape(2, 4, 6, 8).permute(0, 3, 1, 2) for t in (z, g)]
    wanted = (maps[1].mean((2, 3), keepdim=True) * maps[0]).sum(1, keepdim=True).clamp_min(0)
    assert torch.allclose(uf.interpreters.grad_cam(model, x, y, layer="blocks.0"), wanted)


def test_cam_of_averaged_tokens_is_complete(x):
    y = torch.tensor([0, 3])
    for model in (build(class_token=False), build(ChannelsLast)):
        shown = uf.interpreters.cam(model, x, y)
        assert shown.shape == (2, 1, 4, 6)
        total = shown.mean((1, 2, 3)) + model.module.head.bias[y]
        assert torch.allclose(total, model(x).gather(1, y[:, None])[:, 0])
    with pytest.raises(Unsupported, match=r"last spatial layer \('blocks.1.norm1'\)"):
        pooled_head(build(), x)


def test_channels_last_are_told_by_what_reads_them(x):
    model, y = build(ChannelsLast), torch.tensor([0, 3])
    assert last_spatial_layer(model, x) == "norm"
    assert layout_of(model, x, "norm") == Layout("last", (4, 6))
    assert layout_of(model, x, "embed") == Layout("first", (4, 6))
    signed = uf.interpreters.cam(model, x, y)  # grad_cam where pooling is global, but for scale and sign
    assert torch.allclose(uf.interpreters.grad_cam(model, x, y), signed.clamp_min(0) / 24)
    assert uf.interpreters.grad_cam(model, x, y, layer=("embed", "block.2")).shape == (2, 1, 4, 6)


def test_a_grid_that_is_given_or_cannot_be_found():
    x = rand(2, 3, 8, 12, dtype=torch.float64)

    class Cells(nn.Module):
        """Four rows and three columns of cells, wider than high, which is not how the image is shaped."""

        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Linear(3 * 2 * 4, 8), nn.Linear(8, 4)

        def forward(self, x):
            cells = nn.functional.unfold(x, (2, 4), stride=(2, 4)).transpose(1, 2)
            z = torch.tanh(self.embed(cells))
            return self.head(self.norm(z).mean(1)) if hasattr(self, "norm") else self.head(z.mean(1))

    model = build(Cells)
    model.module.norm = nn.LayerNorm(8).double()
    y = torch.tensor([0, 3])
    with pytest.raises(Unsupported, match=r"'norm' .* 12 tokens.*\(3, 4\)"):
        uf.interpreters.grad_cam(model, x, y)
    assert uf.interpreters.grad_cam(model, x, y, grid=(4, 3)).shape == (2, 1, 4, 3)
    assert uf.interpreters.cam(model, x, y, grid=(4, 3)).shape == (2, 1, 4, 3)
    cells = torch.tanh(model.module.embed(nn.functional.unfold(x, (2, 4), stride=(2, 4)).transpose(1, 2)))
    heat = torch.einsum("bnd,bd->bn", model.module.norm(cells), model.module.head.weight[y])
    assert torch.allclose(uf.interpreters.cam(model, x, y, grid=(4, 3))[:, 0], heat.view(2, 4, 3))
    with pytest.raises(InputError, match="16 places.* 'norm' .* 12"):
        uf.interpreters.grad_cam(model, x, y, grid=(4, 4))
    with pytest.raises(InputError, match="grid .* rows .* columns"):
        uf.interpreters.score_cam(model, x, y, grid=(0, 4))


TIMM = {
    "vit_tiny_patch16_224": ("blocks.11.norm1", Layout("tokens", (14, 14), 1)),
    "deit_tiny_distilled_patch16_224": ("blocks.11.norm1", Layout("tokens", (14, 14), 2)),
    "swin_tiny_patch4_window7_224": ("norm", Layout("last", (7, 7))),
    "vit_base_patch16_siglip_224": ("norm", Layout("tokens", (14, 14), 0)),
    "cait_xxs24_224": ("blocks_token_only.1.norm1", Layout("tokens", (14, 14), 1)),
    "pvt_v2_b0": ("stages.3", Layout("first", (7, 7))),
    "mixer_s32_224": ("norm", Layout("tokens", (7, 7))),
    "convnext_atto": ("stages.3.blocks.1", Layout("first", (7, 7))),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_other_peoples_networks(name):
    pytest.importorskip("benchmarks.setting").declare_missing_operators()
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = uf.Classifier(timm.create_model(name, pretrained=False, num_classes=10).eval())
    x = rand(1, 3, 224, 224)
    layer, space = TIMM[name]
    assert last_spatial_layer(model, x) == layer
    assert layout_of(model, x, layer) == space
    shown = uf.interpreters.grad_cam(model, x, torch.tensor([3]))
    assert shown.shape[2:] == space.grid and bool(torch.isfinite(shown).all())


def test_neurons_and_pooled_features_have_their_channels_where_they_are(x):
    """Of channels last and of tokens too."""
    y = torch.tensor([0, 3])
    model = build(ChannelsLast)
    z = model.module.embed(x).permute(0, 2, 3, 1)
    normed = model.module.norm(z + model.module.block(z))
    assert torch.allclose(score(model, x, y, "norm:5"), normed[..., 5].mean((1, 2)))
    assert torch.allclose(score(model, x, y, "norm:5,1,4"), normed[:, 1, 4, 5])
    assert torch.allclose(pooled_features(model, x, "norm")[1], normed.mean((1, 2)))
    assert torch.allclose(pooled_features(model, x, "embed")[1], z.mean((1, 2)))
    model = build()
    tokens = model.module.embed(x).flatten(2).transpose(1, 2) + model.module.places[:, 1:]
    with_class = torch.cat([(model.module.first + model.module.places[:, :1]).expand(2, -1, -1), tokens], 1)
    normed = model.module.blocks[0].norm1(with_class)[:, 1:]
    assert torch.allclose(score(model, x, y, "blocks.0.norm1:5"), normed[..., 5].mean(1))
    assert torch.allclose(score(model, x, y, "blocks.0.norm1:5,1,4"), normed[:, 1 * 6 + 4, 5])


class Fused(nn.Module):
    """One head of the fused attention of patches, which has no second derivative."""

    def __init__(self, rectified=False):
        super().__init__()
        self.rectified = rectified
        self.embed, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 4)

    def forward(self, x):
        z = self.embed(x).flatten(2).transpose(1, 2)[:, None]
        z = z.relu() if self.rectified else z
        return self.head(nn.functional.scaled_dot_product_attention(z, z, z)[:, 0].tanh().mean(1))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gradient", {"double_backward": "exact"}),
        ("gradient", {"double_backward": "smooth"}),
        ("guided_backprop", {"double_backward": "exact"}),
        ("integrated_gradients", {"double_backward": "exact", "steps": 3, "chunk": 2}),
    ],
)
def test_fused_attention_is_differentiated_twice(x, name, options):
    model, y = build(Fused, rectified=name == "guided_backprop"), torch.tensor([0, 3])
    show = uf.find("interpreter", name).with_options(**options)
    point = x.clone().requires_grad_()
    shown = show(model, point, y)
    probe = randn(shown.shape, seed=1, dtype=torch.float64)
    (slope,) = torch.autograd.grad((probe * shown).sum(), point)
    direction = randn(x.shape, seed=2, dtype=torch.float64)
    with torch.no_grad():
        ahead, behind = (show(model, x + s * direction, y) for s in (1e-6, -1e-6))
    assert torch.allclose((slope * direction).sum(), (probe * (ahead - behind)).sum() / 2e-6, rtol=1e-4)
