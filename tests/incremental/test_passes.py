"""Passes that compute only what a change reaches give what whole passes give, and compute less."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import underfire as uf
from tests.networks import rand, randn
from underfire.hooks import frozen
from underfire.incremental.intervals import Intervals, Window
from underfire.incremental.passes import IncrementalForward, NotReusable

pytestmark = pytest.mark.slow  # one of the twenty heaviest files


class Everything(nn.Module):
    """Strides that skip, dilation, groups, padding on one side, pooling, channels cut and joined, and much in place."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 5, stride=3, padding=2)
        self.norm = nn.BatchNorm2d(8)
        self.b = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4)
        self.c = nn.Conv2d(8, 8, (1, 3), stride=(1, 2), padding=(0, 1), padding_mode="zeros")
        self.act = nn.Sequential(nn.ReLU6(inplace=True), nn.PReLU(8), nn.Hardswish(inplace=True), nn.Dropout(0.5))
        self.low, self.high = nn.MaxPool2d(3, 2, padding=1), nn.AvgPool2d(2, 1, padding=1)
        self.head = nn.Linear(20, 5)

    def forward(self, x):
        x = self.act(self.norm(self.a(x)))
        x = F.relu(x + self.b(x), inplace=True)
        x = self.high(F.pad(x, (0, 1, 2, 0))) * 2
        one, two = self.low(x).chunk(2, 1)
        x = torch.cat([one.sigmoid(), two, self.c(x)[:, :4, ::2, : two.shape[3]][:, :, : two.shape[2]]], 1)
        x = F.pad(x[:, :, ::2, 1::2], (0, 0, 0, 0, 3, 5))
        return self.head(x.amax((2, 3)))


class Gated(nn.Module):
    """A gate that depends on the whole image, and an addition of a map that is the same for all images."""

    def __init__(self):
        super().__init__()
        self.a, self.gate = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 1)
        self.place = nn.Parameter(randn(1, 6, 24, 20, seed=3))
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = self.a(x)
        x = x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid() / x.abs().mean((1, 2, 3), keepdim=True)
        return self.head((x + self.place).relu().mean((2, 3)))


class Tokens(nn.Module):
    """What there are no rules for."""

    def __init__(self):
        super().__init__()
        self.cut = nn.Conv2d(3, 8, 4, 4)
        self.mix = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.mix(self.cut(x).flatten(2).mT).mean(1))


def strange(model, seed=0):
    """The model with weights and statistics that are neither zero nor one."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
            value.copy_(noise.abs() + 0.5 if name.endswith("var") else noise / max(value[0].numel(), 1) ** 0.5)
    return model.eval()


def rectangles(x, image, top, left, height, width):
    """Images with black rectangles, whole and as patches."""
    h, w = x.shape[2:]
    rows, columns = Intervals(top, top + height, h), Intervals(left, left + width, w)
    whole = x[image].clone()
    for k, (i, j) in enumerate(zip(top.tolist(), left.tolist(), strict=True)):
        whole[k, :, max(i, 0) : max(i + height, 0), max(j, 0) : max(j + width, 0)] = 0
    starts = zip(rows.start.tolist(), columns.start.tolist(), strict=True)
    patch = torch.stack([whole[k, :, i : i + rows.size, j : j + columns.size] for k, (i, j) in enumerate(starts)])
    return whole, patch, rows, columns


def compare(model, x, tolerance, *, height=5, width=4, samples=60):
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(len(x), (samples,), generator=generator)
    # Some begin before the image or end after it, and some are outside altogether.
    top = torch.randint(-height - 1, x.shape[2] + 2, (samples,), generator=generator)
    left = torch.randint(-width - 1, x.shape[3] + 2, (samples,), generator=generator)
    with frozen(model), torch.no_grad():
        known = IncrementalForward(model, x)
        assert torch.allclose(known.logits, model(x), atol=tolerance)
        for part in (slice(0, 1), slice(0, samples)):
            whole, patch, rows, columns = rectangles(x, image[part], top[part], left[part], height, width)
            found = known(patch, image[part], rows, columns)
            assert torch.allclose(found, model(whole), atol=tolerance, rtol=tolerance)


class Viewed(nn.Module):
    """Asks for views of activations, before and after whole ones are needed."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 9, padding=4)
        self.head = nn.Linear(6 * 24 * 20, 4)

    def forward(self, x):
        x = self.a(x)
        y = x.view(len(x), -1) + self.b(x).view(len(x), -1)
        return self.head(y + self.b(self.b(x).relu()).view(len(x), -1))


@pytest.mark.parametrize("model", [Everything, Gated, Tokens, Viewed])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_equal_to_whole_passes(model, dtype, tolerance):
    network = uf.Classifier(strange(model()).to(dtype), mean=(0.4, 0.5, 0.6), std=0.25)
    for n in (1, 3):
        x = rand(n, 3, 24, 20, seed=n, dtype=dtype)
        compare(network, x, tolerance)
        compare(network, x, tolerance, height=1, width=1)


def test_equal_on_the_small_network_and_in_training_mode(network):
    x = rand(2, 3, 12, 9, dtype=torch.float64)
    compare(network("relu", torch.float64).train(), x, 1e-10, height=3, width=2)


@pytest.mark.slow
def test_equal_on_a_residual_network():
    model = uf.models.load("zoo:cluttered_digits")
    x = uf.data.load("cluttered-digits:test")[:3].x
    compare(model.double(), x.double(), 1e-10, height=7, width=7, samples=24)


@pytest.mark.parametrize("arch", ["resnet20_cifar10", "mobilenet_v1_075_imagenet"])
def test_equal_on_published_networks(data_root, arch):
    model = uf.models.load(f"{data_root / 'weights' / arch}.safetensors?arch={arch}")
    size = 32 if "cifar" in arch else 96
    x = rand(2, 3, size, size)
    compare(model, x, 1e-5, height=9, width=9, samples=12)


def test_a_span_reaches_what_reads_it():
    """By brute force: an output may differ exactly where one of the places it reads does."""
    for reach, stride, before, dilation in [(3, 1, 1, 1), (5, 3, 2, 1), (1, 2, 0, 1), (1, 2, -1, 1), (3, 2, 0, 2)]:
        window, length = Window(reach, stride, before, dilation), 17
        outputs = (length + 2 * max(before, 0) + min(before, 0) - dilation * (reach - 1) - 1) // stride + 1
        low = torch.arange(-2, 19)
        for size in (1, 4):
            spans = Intervals(low, low + size, length)
            after = spans.through(window, outputs)
            for k in range(len(low)):
                changed = {i for i in range(length) if spans.low[k] <= i < spans.high[k]}
                assert changed == {i for i in range(low[k], low[k] + size) if 0 <= i < length}
                reads = {o: {o * stride - before + dilation * j for j in range(reach)} for o in range(outputs)}
                differ = [o for o in range(outputs) if reads[o] & changed]
                claimed = [o for o in range(outputs) if after.low[k] <= o < after.high[k]]
                assert claimed == differ or (dilation > 1 and set(differ) <= set(claimed))  # the holes are not seen
                window_of = range(int(after.start[k]), int(after.start[k]) + after.size)
                assert set(differ) <= set(window_of) <= set(range(outputs))


class Lying(nn.Module):
    """Writes into what it also sees through a view."""

    def forward(self, x):
        x = x * 2
        half = x[:, :, ::2]
        x.relu_()
        return half.mean((2, 3))


class Moody(nn.Module):
    """Does something else each time."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return (x.relu() if self.calls % 2 else x.sigmoid()).mean((2, 3))


class Buffered(nn.Module):
    """Fills a tensor of its own, piece by piece, with what it says of the whole image."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        x = self.a(x)
        y, gate = self.b(x), torch.zeros(len(x), 4, 1, 1, dtype=x.dtype)
        gate[:, :2] = x.mean((2, 3), keepdim=True)[:, :2]
        return self.head((y * gate).relu().mean((2, 3)))


class Unpooled(nn.Module):
    """Reads where the maxima were."""

    def forward(self, x):
        largest, places = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(largest, places, 2).mean((2, 3))


class Outside(nn.Module):
    """Computes with NumPy."""

    def forward(self, x):
        return torch.from_numpy((x * 2).numpy().mean((2, 3)))


class Strides(nn.Module):
    """Looks at memory."""

    def forward(self, x):
        return x.as_strided(x.shape, x.stride()).relu().mean((2, 3))


class Counting(nn.Module):
    """Does the same with another number each time."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return (x * self.calls).mean((2, 3))


class Promoting(nn.Module):
    """Multiplies in place by a number of higher precision, and a map by itself."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        x = self.a(x)
        x *= torch.full((4, 1, 1), 1.7, dtype=torch.float64)
        x = self.b(x)
        return self.b(x * x + x).mean((2, 3))


@pytest.mark.parametrize("model", [Lying(), Moody(), Unpooled(), Outside(), Strides(), Counting()])
def test_what_cannot_be_reused_is_said(model):
    x = rand(1, 3, 8, 8) - 0.5
    with pytest.raises(NotReusable), frozen(model):
        known = IncrementalForward(model, x)
        zero = torch.zeros(1, dtype=torch.int64)
        known(torch.zeros(1, 3, 2, 2), zero, Intervals(zero, zero + 2, 8), Intervals(zero, zero + 2, 8))


def test_less_is_computed(data_root):
    """MobileNet at 224: the 13 patches of one row of an occlusion cost at most half of 13 passes."""
    name = "mobilenet_v1_075_imagenet"
    model = uf.models.load(f"{data_root / 'weights' / name}.safetensors?arch={name}")
    x = rand(1, 3, 224, 224)
    left = torch.arange(13) * 16
    top = torch.full_like(left, 80)
    with frozen(model), torch.no_grad():
        known = IncrementalForward(model, x)
        with FlopCounterMode(display=False) as whole:
            model(x)
        with FlopCounterMode(display=False) as part:
            known(
                torch.zeros(13, 3, 32, 32),
                torch.zeros_like(left),
                Intervals(top, top + 32, 224),
                Intervals(left, left + 32, 224),
            )
    assert part.get_total_flops() <= 0.5 * 13 * whole.get_total_flops()


def test_a_buffer_that_is_filled_with_what_changes_counts_as_changed():
    x = rand(1, 3, 9, 11, dtype=torch.float64)
    compare(strange(Buffered()).double(), x, 1e-10)


def test_in_place_keeps_the_type():
    x = rand(2, 3, 16, 11)
    compare(strange(Promoting()), x, 1e-5)


def test_a_map_read_twice_by_one_operation_is_still_a_rectangle():
    """The square of a map takes no whole map."""
    model, x = strange(Promoting()), rand(1, 3, 32, 32)
    zero = torch.zeros(1, dtype=torch.int64)
    with frozen(model), FlopCounterMode(display=False) as count:
        known = IncrementalForward(model, x)
        before = count.get_total_flops()
        known(torch.zeros(1, 3, 4, 4), zero, Intervals(zero + 8, zero + 12, 32), Intervals(zero + 8, zero + 12, 32))
    assert count.get_total_flops() - before < before / 3


@st.composite
def layers(draw):
    """A layer of a random network that keeps 4 channels, as the arguments of `RandomNetwork`."""
    number = st.integers(1, 3)
    kind = draw(
        st.sampled_from(["convolve", "transpose", "most", "mean", "pad", "gate", "norm", "join", "skip", "mix"])
    )
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    reach = draw(st.tuples(number, number))
    padding = tuple(draw(st.integers(0, r // 2)) for r in reach)
    return {
        "kind": kind,
        "mode": mode,
        "reach": reach,
        "padding": padding,
        "stride": draw(st.tuples(number, number)),
        "dilation": draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        "groups": draw(st.sampled_from([1, 2, 4])),
        "flag": draw(st.booleans()),
        "edges": draw(st.tuples(*[st.integers(-1, 2)] * 4)),
    }


class RandomNetwork(nn.Module):
    """Random layers one after the other; a layer for which the map has become too small is left out."""

    def __init__(self, made):
        super().__init__()
        self.made, generator = made, torch.Generator().manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.kernels = [
            torch.randn(4, 4 // (m["groups"] if m["kind"] == "convolve" else 1), *m["reach"], generator=generator) / 4
            for m in made
        ]

    def forward(self, x):
        x = self.first(x)
        for m, kernel in zip(self.made, self.kernels, strict=True):
            needed = max(d * (r - 1) + 1 for d, r in zip(m["dilation"], m["reach"], strict=True))
            if min(x.shape[2:]) > max(needed, 3):
                x = self.layer(m, kernel.to(x), x)
        return x.flatten(1).cumsum(1)[:, ::5] / 10

    def layer(self, m, kernel, x):
        flag, reach, padding, stride = m["flag"], m["reach"], m["padding"], m["stride"]
        if m["kind"] == "convolve":
            if m["mode"] != "zeros":
                x, padding = F.pad(x, (padding[1],) * 2 + (padding[0],) * 2, mode=m["mode"]), 0
            return F.conv2d(x, kernel, None, stride, padding, m["dilation"], m["groups"])
        if m["kind"] == "transpose":
            return F.conv_transpose2d(x, kernel, None, 2 if flag else 1, padding)
        if m["kind"] == "most":
            return F.max_pool2d(x, reach, stride, padding, m["dilation"], ceil_mode=flag)
        if m["kind"] == "mean":
            return F.avg_pool2d(x, reach, stride, padding, ceil_mode=flag, count_include_pad=m["groups"] == 1)
        if m["kind"] == "pad":
            return F.pad(x, m["edges"], value=0.5)
        if m["kind"] == "gate":
            gate = x.mean((2, 3)).sigmoid().view(len(x), 4, 1, 1)
            return x.mul_(gate) if flag else x.relu() * gate
        if m["kind"] == "norm":
            return (
                F.group_norm(x, m["groups"])
                if flag
                else F.batch_norm(x, kernel[:, 0, 0, 0], kernel.abs().sum((1, 2, 3)) + 1)
            )
        if m["kind"] == "join":
            one, two = x.chunk(2, 1)
            return torch.cat([two.relu(), one + two], 1)
        if m["kind"] == "skip":
            return F.relu(x + F.conv2d(F.relu6(x), kernel[:, :, :1, :1]), inplace=flag)
        tokens = x.flatten(2).mT
        return x + F.scaled_dot_product_attention(tokens, tokens, tokens).mT.reshape(x.shape)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    made=st.lists(layers(), min_size=1, max_size=5),
    size=st.tuples(st.integers(4, 19), st.integers(4, 19)),
    rectangle=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    n=st.integers(1, 3),
    last=st.booleans(),
)
def test_equal_on_random_networks(made, size, rectangle, n, last):
    x = rand(n, 3, *size, seed=n, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    compare(RandomNetwork(made).double().eval(), x, 1e-9, height=rectangle[0], width=rectangle[1], samples=7)
