"""Fills of removed pixels, and the evaluation of a model on variants of images."""

import pytest
import torch

from tests.networks import build_network, rand
from underfire.attribution.fills import fill_image
from underfire.attribution.variants import class_output, class_scores, evaluate_variants
from underfire.errors import InputError, ModelError, Unsupported


def test_black_mean_and_grey():
    x = rand(2, 3, 5, 6, dtype=torch.float64)
    assert torch.equal(fill_image(x, "black"), torch.zeros_like(x))
    assert torch.equal(fill_image(x, 0.25), torch.full_like(x, 0.25))
    mean = fill_image(x, "mean")
    assert mean.shape == x.shape and torch.allclose(mean[:, :, 0, 0], x.mean((2, 3)))


@pytest.mark.parametrize("size", [(9, 12), (40, 33)])
def test_the_blur_is_that_of_scipy_at_every_size(size):
    ndimage = pytest.importorskip("scipy.ndimage")
    x = rand(1, 2, *size, dtype=torch.float64)
    # mode "mirror" does not repeat the border; the radius of the kernel is 5 pixels at every size
    wanted = ndimage.gaussian_filter(x.numpy(), (0, 0, 5.0, 5.0), mode="mirror", radius=(0, 0, 5, 5))
    assert torch.allclose(fill_image(x, "blur"), torch.from_numpy(wanted))


def test_fills_that_are_refused():
    x = rand(1, 1, 4, 4)
    with pytest.raises(Unsupported, match="'pink' is unknown"):
        fill_image(x, "pink")
    with pytest.raises(InputError, match="got 1.5"):
        fill_image(x, 1.5)


@pytest.mark.parametrize("chunk", [1, 4, None])
def test_every_variant_of_every_image_is_asked_about(chunk):
    model, x, y = build_network("relu", torch.float64), rand(3, 3, 6, 6, dtype=torch.float64), torch.tensor([0, 3, 1])
    scale = torch.tensor([1.0, 0.5, 0.0, 0.25], dtype=torch.float64)

    def make(image, variant):
        return x[image] * scale[variant].view(-1, 1, 1, 1)

    logits = torch.stack([model(s * x)[torch.arange(3), y] for s in scale], 1)
    answers = evaluate_variants(model, x, y, 4, make, class_output("logit"), chunk=chunk)
    assert torch.allclose(answers, logits)
    logit, probability = class_scores(model, x, y, 4, make, chunk)
    wanted = torch.stack([model(s * x).softmax(1)[torch.arange(3), y] for s in scale], 1)
    assert torch.allclose(logit, logits) and torch.allclose(probability, wanted) and not logit.requires_grad


def test_a_model_may_be_any_callable_and_must_give_logits():
    x, y = rand(2, 1, 3, 3), torch.tensor([0, 1])

    def make(image, variant):
        return x[image]

    logit, _ = class_scores(lambda images: images.flatten(1)[:, :2], x, y, 2, make)
    assert torch.equal(logit, x.flatten(1)[torch.arange(2), y][:, None].expand(2, 2))
    with pytest.raises(ModelError, match="logits"):
        class_scores(lambda images: images, x, y, 2, make)
    with pytest.raises(ModelError, match="NaN .* 2 of 2"):
        class_scores(lambda images: images.flatten(1) * float("nan"), x, y, 2, make)
