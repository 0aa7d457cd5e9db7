"""Small members of the families of image classifiers that other libraries define, with random weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import underfire as uf
from tests.networks import rand, seeded

SIDE = 32


def library(name: str):
    """Import torchvision, timm or transformers, or skip the test and say which is missing."""
    pytest.importorskip("benchmarks.setting").declare_missing_operators()
    return pytest.importorskip(name)


def vision(build: Callable) -> Callable[[], nn.Module]:
    return lambda: build(library("torchvision").models)


def pytorch_image_models(build: Callable) -> Callable[[], nn.Module]:
    return lambda: build(library("timm").models)


def hugging_face(build: Callable) -> Callable[[], nn.Module]:
    return lambda: Logits(build(library("transformers")))


class Logits(nn.Module):
    """Return the logits of a model that answers with an object."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).logits


def densenet(tv):
    return tv.DenseNet(8, (2, 2, 2, 2), 16, num_classes=4)


def regnet(tv):
    stages = tv.regnet.BlockParams.from_init_params(depth=4, w_0=8, w_a=8, w_m=2, group_width=8)
    return tv.RegNet(stages, num_classes=4, stem_width=8)


def convnext(tv):
    setting = tv.convnext.CNBlockConfig
    return tv.ConvNeXt([setting(16, 24, 1), setting(24, None, 1)], num_classes=4, layer_scale=1.0)


def swin_v2(tv):
    st = tv.swin_transformer
    parts = {"block": st.SwinTransformerBlockV2, "downsample_layer": st.PatchMergingV2}
    return st.SwinTransformer([2, 2], 16, [2, 2], [2, 4], [4, 4], num_classes=4, **parts)


def timm_vit(**options):
    size = {"img_size": SIDE, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 4}
    return pytorch_image_models(lambda t: t.VisionTransformer(**size, **options))


def patches(name, **options):
    size = {"img_size": SIDE, "patch_size": 8, "embed_dim": 32, "num_classes": 4}
    return pytorch_image_models(lambda t: getattr(t, name)(**size | options))


def pyramid_transformer(t):
    sizes = {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 24, 32), "num_heads": (1, 2, 2, 4)}
    return t.PyramidVisionTransformerV2(num_classes=4, **sizes)


def transformer(name: str, **options):
    size = {"image_size": SIDE, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}

    def build(tf):
        config = getattr(tf, f"{name}Config")(**size | {"intermediate_size": 48, "num_labels": 4} | options)
        return getattr(tf, f"{name}ForImageClassification")(config)

    return hugging_face(build)


def stages(name: str, **options):
    def build(tf):
        config = getattr(tf, f"{name}Config")(num_labels=4, **options)
        return getattr(tf, f"{name}ForImageClassification")(config)

    return hugging_face(build)


BLOCKS = {"hidden_sizes": [16, 24], "depths": [1, 1]}
ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "torchvision resnet": vision(lambda tv: tv.ResNet(tv.resnet.BasicBlock, [1, 1, 1, 1], num_classes=4)),
    "torchvision resnet, bottlenecks": vision(lambda tv: tv.ResNet(tv.resnet.Bottleneck, [1, 2, 1, 1], num_classes=4)),
    "torchvision resnext": vision(
        lambda tv: tv.ResNet(tv.resnet.Bottleneck, [1, 1, 1, 1], groups=8, width_per_group=4, num_classes=4)
    ),
    "torchvision densenet": vision(densenet),
    "torchvision squeezenet": vision(lambda tv: tv.squeezenet1_1(num_classes=4)),
    "torchvision mobilenet v2": vision(lambda tv: tv.mobilenet_v2(width_mult=0.25, num_classes=4)),
    "torchvision mobilenet v3": vision(lambda tv: tv.mobilenet_v3_small(width_mult=0.25, num_classes=4)),
    "torchvision shufflenet": vision(lambda tv: tv.ShuffleNetV2([1, 1, 1], [8, 16, 32, 64, 64], num_classes=4)),
    "torchvision regnet": vision(regnet),
    "torchvision convnext": vision(convnext),
    "torchvision vit": vision(lambda tv: tv.VisionTransformer(SIDE, 8, 2, 2, 32, 48, num_classes=4)),
    "torchvision swin": vision(lambda tv: tv.SwinTransformer([2, 2], 16, [2, 2], [2, 4], [4, 4], num_classes=4)),
    "torchvision swin v2": vision(swin_v2),
    "timm vit, class token": timm_vit(qkv_bias=True),
    "timm vit, registers and normalised queries": timm_vit(reg_tokens=4, qk_norm=True),
    "timm vit, mean of patches": timm_vit(class_token=False, global_pool="avg", fc_norm=False),
    "timm vit, pooled by attention": timm_vit(class_token=False, global_pool="map"),
    "timm cait": patches("Cait", depth=2, num_heads=2, depth_token_only=1),
    "timm mixer": patches("MlpMixer", num_blocks=2),
    "timm swin": patches("SwinTransformer", patch_size=2, window_size=4, embed_dim=16, depths=(2, 2), num_heads=(2, 4)),
    "timm swin v2": patches(
        "SwinTransformerV2", patch_size=2, window_size=4, embed_dim=16, depths=(2, 2), num_heads=(2, 4)
    ),
    "timm convmixer": pytorch_image_models(lambda t: t.ConvMixer(32, 2, kernel_size=3, patch_size=4, num_classes=4)),
    "timm pvt v2": pytorch_image_models(pyramid_transformer),
    "transformers vit": transformer("ViT"),
    "transformers deit": transformer("DeiT"),
    "transformers beit": transformer("Beit", use_mean_pooling=True),
    "transformers convnext": stages("ConvNext", num_stages=2, layer_scale_init_value=1.0, **BLOCKS),
    "transformers resnet": stages("ResNet", embedding_size=16, layer_type="basic", **BLOCKS),
    "transformers swin": stages(
        "Swin", image_size=SIDE, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4
    ),
}


def classifier(name: str) -> uf.Classifier:
    """Return an architecture with random weights with which its answers depend on the image, as trained ones do."""
    torch.manual_seed(0)
    model = ARCHITECTURES[name]()
    with torch.no_grad():
        for key, parameter in model.named_parameters():  # a head that begins at zero
            if key.endswith("head.weight") and not parameter.any():
                parameter.normal_(std=0.1, generator=seeded())
        # the statistics of batch normalisation are those of some images
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        model.train()(rand(8, 3, SIDE, SIDE, seed=3))
    return uf.Classifier(model.eval(), mean=0.5, std=0.25)
