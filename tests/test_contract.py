"""What every network in `MODELS` and every operator in `unpool.ops` must do."""

import inspect
import json

import numpy as np
import pytest
import torch

from unpool import ops
from unpool.errors import ShapeError
from unpool.models import MODELS, Deblur, Network, from_pretrained, save_pretrained
from unpool.models.fast import accelerate
from unpool.ops import blur, inversion
from unpool.ops.coding import synthesis
from unpool.segment.segmenter import Segmenter

TABLE = ((1, 4), (1, 6), (1, 8))
SMALL = {
    "DeconvNet": {"classes": 3, "trunk": TABLE, "code": None, "size": 32},
    "FCN": {"classes": 3, "trunk": TABLE, "code": 8, "stride": 4, "pad": 1, "window": 3},
    "SegNet": {"classes": 3, "trunk": TABLE, "dropout": 0.5},
    "SegNetBasic": {"classes": 3, "width": 6, "kernel": 5, "stages": 3},
    "DeepLab": {
        "classes": 3, "trunk": TABLE, "code": 8, "dilation": 2, "fine": True, "fine_width": 6,
    },
    "CRFRNN": {"classes": 3, "trunk": TABLE, "code": 8, "stride": 4, "pad": 1, "window": 3},
    "DecoupledNet": {
        "classes": 3, "trunk": TABLE, "code": 9, "seg_code": 8, "size": 40, "window": 3, "stages": 2
    },
    "AlexNet": {"classes": 3, "widths": (4, 6, 6, 6, 6), "code": 8, "size": 67},
    "ZFNet": {"classes": 3, "widths": (4, 6, 6, 6, 6), "code": 8, "size": 64},
    "VGG": {"classes": 3, "trunk": TABLE, "code": 8, "size": 32},
    "SqueezeNet": {"classes": 3, "width": 4, "stages": (((4, 8),), ((4, 8),)), "size": 64},
    "GenerativeNet": {
        "styles": 5, "size": 16, "code": 8, "shared": 8, "widths": (6,), "mask_widths": (4,),
    },
    "SparseCoder": {
        "maps": (4, 6), "kernel": 5, "channels": 3, "lam": (0.5, 0.5), "steps": 5,
    },
    "CRCNet": {"units": 2, "width": 4, "kernel": 5, "widths": (4,)},
    "IRDNet": {"width": 8, "blocks": 1, "steps": (1, 16)},
    "BlindNet": {"width": 4, "blocks": 1, "outer": 1},
    "MSResNet": {"scales": 2, "width": 6, "blocks": 1},
    "SRN": {"scales": 2, "width": 4, "blocks": 1, "lstm": True},
}  # fmt: skip
PUBLISHED = {  # learned and fixed values of the network that the defaults build
    "DeconvNet": 251_805_653,
    "FCN": 134_489_759,
    "SegNet": 29_449_355,
    "SegNetBasic": 1_416_587,
    "DeepLab": 20_505_429,
    "CRFRNN": 134_491_082,
    "DecoupledNet": 134_342_484 + 173_107_906,
    "AlexNet": 60_965_224,
    "ZFNet": 62_357_608,
    "VGG": 138_357_544,
    "SqueezeNet": 1_235_496,
    "GenerativeNet": 31_893_092,
    "SparseCoder": 510_384,
    "CRCNet": 421_733,
    "IRDNet": 155_971,
    "BlindNet": 498_052,
    "MSResNet": 11_721_321,
    "SRN": 6_881_251,
}
ANY_SIZE = (
    "DeconvNet",
    "FCN",
    "SegNet",
    "SegNetBasic",
    "DeepLab",
    "CRFRNN",
    "DecoupledNet",
    "SqueezeNet",
    "SparseCoder",
    "CRCNet",
    "IRDNet",
    "BlindNet",
    "MSResNet",
    "SRN",
)
every_network = pytest.mark.parametrize("name", MODELS)


@pytest.fixture
def net(name, filled):
    return filled(MODELS[name](**SMALL[name]))


def inputs(net, count, size=None, seed=0):
    """A batch as the network takes it."""
    generator = torch.Generator().manual_seed(seed)
    if type(net).__name__ == "GenerativeNet":
        widths = net.styles, 4, net.numbers
        return tuple(torch.rand(count, width, generator=generator) for width in widths)
    height, width = size or [net.size or 40] * 2
    if isinstance(net, Deblur):  # from 0 to 1; with the PSF if it is known
        images = torch.rand(count, 3, height, width, generator=generator)
        psf = torch.full((count, 1, 3, 5), 1 / 15)
        return (images, psf) if type(net).__name__ == "IRDNet" else (images,)
    return (50 * torch.randn(count, 3, height, width, generator=generator),)


def outputs(net, batch):
    """All that comes out, as a tuple of tensors."""
    found = net(*batch)
    return found if isinstance(found, tuple) else (found,)


def same(found, expected, **tolerance):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


# ---- networks ------------------------------------------------------------------------------------


def test_every_network_is_tested():
    assert list(SMALL) == list(PUBLISHED) == list(MODELS)


@every_network
def test_the_published_network_has_as_many_parameters(name):
    with torch.device("meta"):
        net = MODELS[name]()
    assert sum(parameter.numel() for parameter in net.parameters()) == PUBLISHED[name]


@every_network
@torch.no_grad()
def test_saved_networks_come_back_bit_for_bit(net, name, tmp_path):
    again, card = from_pretrained(save_pretrained(net, tmp_path / "weights", {"note": "small"}))
    assert type(again) is MODELS[name]
    assert card.note == "small"
    assert card.arguments == again.arguments == json.loads(json.dumps(net.arguments))
    assert not again.training
    before = outputs(net, inputs(net, 2))
    same(outputs(again, inputs(net, 2)), before, rtol=0, atol=0)
    same(outputs(net, inputs(net, 2)), before, rtol=0, atol=0)  # evaluation is deterministic


@every_network
@torch.no_grad()
def test_int8_is_within_half_a_step(net, name, tmp_path):
    again, _ = from_pretrained(save_pretrained(net, tmp_path / "weights", {}, int8=True))
    for key, value in net.state_dict().items():
        step = float(value.abs().max()) / 127
        torch.testing.assert_close(again.state_dict()[key], value, rtol=0, atol=0.51 * step)


@every_network
@torch.no_grad()
def test_a_batch_is_its_samples_and_may_be_empty(net, name):
    batch = inputs(net, 3)
    whole = outputs(net, batch)
    for i in range(3):
        one = outputs(net, [x[i : i + 1] for x in batch])
        same(one, [y[i : i + 1] for y in whole], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(whole[0][0], whole[0][1])
    none = outputs(net, [x[:0] for x in batch])
    assert [y.shape for y in none] == [(0, *y.shape[1:]) for y in whole]


@pytest.mark.parametrize("name", [name for name in MODELS if name != "GenerativeNet"])
@torch.no_grad()
def test_odd_sizes_are_taken_or_refused(net, name):
    batch = inputs(net, 2, (47, 61))
    if name in ANY_SIZE:
        (scores,) = outputs(net, batch)
        assert scores.shape in [(2, 3, 47, 61), (2, 3)]
    else:
        with pytest.raises(ShapeError, match=r"\(2, 3, 47, 61\).*: resize or crop"):
            net(*batch)


@pytest.mark.parametrize("name", [name for name, net in MODELS.items() if issubclass(net, Network)])
def test_tiles_are_for_every_network_that_segments(net, name):
    """An image in one tile has the scores of a pass; a larger one has labels of its size."""
    segmenter = Segmenter(net, ["a", "b", "c"], mode="tiles", exact=True, device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (90, 40, 3), np.uint8)
    one = segmenter.predict(image[:30]).logits
    np.testing.assert_allclose(one, segmenter.infer(image[None, :30])[0], rtol=1e-5, atol=1e-5)
    options = {} if name == "DecoupledNet" else {"tile": 32, "overlap": 8}
    assert segmenter(image, **options).labels.shape == (90, 40)


@every_network
@torch.no_grad()
def test_the_fast_form_gives_the_same(net, name):
    before = {key: value.clone() for key, value in net.state_dict().items()}
    expected = outputs(net, inputs(net, 2))
    same(outputs(accelerate(net), inputs(net, 2)), expected, rtol=1e-3, atol=1e-3)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@every_network
@torch.no_grad()
def test_torch_export_takes_it(net, name):
    net = net.net if name == "CRFRNN" else net  # its lattices have as many cells as colors give
    program = torch.export.export(net, inputs(net, 2))
    same(outputs(program.module(), inputs(net, 2, seed=1)), outputs(net, inputs(net, 2, seed=1)))


@every_network
def test_a_training_step_lowers_the_loss(net, name):
    def loss():
        torch.manual_seed(0)  # the same dropout
        return sum(y.square().mean() for y in outputs(net.train(), batch))

    batch, learned = inputs(net, 4), [p for p in net.parameters() if p.requires_grad]
    before = loss()
    gradients = torch.autograd.grad(before, learned)  # which refuses unused ones
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)
    size = sum(gradient.square().sum() for gradient in gradients)
    with torch.no_grad():
        for parameter, gradient in zip(learned, gradients, strict=True):
            parameter -= 1e-3 * before / size * gradient
        assert loss() < before


# ---- operators -----------------------------------------------------------------------------------


def values(*shape, seed=0):
    """Distinct numbers from 0 to 1: no ties, and no two closer than gradcheck's step."""
    order = torch.randperm(torch.Size(shape).numel(), generator=torch.Generator().manual_seed(seed))
    return (order.double() + 0.5).view(shape) / order.numel()


def kernels(*weights):
    return ops.DenseCRF(tuple(ops.Kernel(2, w, 40 * i or None) for i, w in enumerate(weights)), 2)


IMAGE = (255 * values(3, 4, 3)).byte()
SWITCHES = ops.pool(values(2, 3, 5, 8), ceil=True)[1]
NEAR = ops.Kernel(2, 1)
CELLS = ops.pool3(values(2, 3, 5, 8))[1]


def filtered(make):
    return lambda x: make(like=x)(x)


def coded(solve):
    return lambda y, w: solve(y, synthesis(w), 0.1, steps=3, bound=9.0)


OPERATORS = {  # what is called, on which tensors, and the shape of what comes out
    "as_convolution": (ops.as_convolution, [(3, 4, 5, 5)], (4, 3, 5, 5)),
    "bilinear_kernel": (lambda: ops.bilinear_kernel(3, 4), [], (3, 3, 4, 4)),
    "blur": (blur.blur, [(2, 2, 5, 6), (3, 5)], (2, 2, 5, 6)),
    "blur_adjoint": (blur.blur_adjoint, [(2, 2, 5, 6), (3, 5)], (2, 2, 5, 6)),
    "crf_filter": (filtered(lambda like: ops.crf_filter(kernels(3, 5), (3, 4), IMAGE, like)),
                   [(12, 2)], (12, 2)),
    "deconv": (lambda x, w, b: ops.deconv(x, w, b, 2, 1),
               [(2, 3, 3, 4), (3, 2, 3, 3), (2,)], (2, 2, 5, 7)),
    "fista": (coded(ops.fista), [(2, 1, 4, 5), (3, 1, 3, 3)], (2, 3, 6, 7)),
    "fixed_unpool": (ops.fixed_unpool, [(2, 3, 2, 3)], (2, 3, 4, 6)),
    "inverse_root": (lambda x: ops.inverse_root(x @ x.mT), [(2, 3, 3)], (2, 3, 3)),
    "ista": (coded(ops.ista), [(2, 1, 4, 5), (3, 1, 3, 3)], (2, 3, 6, 7)),
    "kernel_filter": (filtered(lambda like: ops.kernel_filter(NEAR, (3, 4), None, like=like)),
                      [(12, 2)], (12, 2)),
    "mean_field": (lambda x: ops.mean_field(x, IMAGE, kernels(3, 5)), [(2, 3, 4)], (2, 3, 4)),
    "messages": (lambda q, w: ops.messages(q, [ops.kernel_filter(NEAR, (3, 4), None, like=q)], [w]),
                 [(12, 2), (2, 2)], (12, 2)),
    "noise_level": (inversion.noise_level, [(2, 3, 5, 6)], (2, 3)),
    "pool": (lambda x: ops.pool(x, ceil=True)[0], [(2, 3, 5, 8)], (2, 3, 3, 4)),
    "pool3": (lambda z: ops.pool3(z)[0], [(2, 3, 5, 8)], (2, 2, 2, 3)),
    "pool_at": (lambda z: ops.pool_at(z, CELLS), [(2, 3, 5, 8)], (2, 2, 2, 3)),
    "residuals": (lambda y, k: inversion.residuals(y, k / 8, [1, 9]), [(2, 2, 4, 5), (3, 3)],
                  (2, 2, 2, 4, 5)),
    "richardson_lucy": (lambda y, k: inversion.richardson_lucy(y, k / k.sum(), 3),
                        [(2, 2, 4, 5), (3, 3)], (2, 2, 4, 5)),
    "tikhonov": (lambda y, k: inversion.tikhonov(y, k, 0.1), [(2, 2, 4, 5), (3, 3)], (2, 2, 4, 5)),
    "total_variation": (lambda y, k: inversion.total_variation(y, k, 0.1, 3),
                        [(2, 2, 4, 5), (3, 3)], (2, 2, 4, 5)),
    "uconv": (ops.uconv, [(2, 3, 2, 3), (3, 2, 5, 5), (2,)], (2, 2, 4, 6)),
    "unary_from_probabilities": (ops.unary_from_probabilities, [(2, 3, 4)], (2, 3, 4)),
    "unpool": (lambda y: ops.unpool(y, SWITCHES), [(2, 3, 3, 4)], (2, 3, 5, 8)),
    "unpool3": (lambda p: ops.unpool3(p, CELLS), [(2, 2, 2, 3)], (2, 3, 5, 8)),
    "wiener": (lambda y, k: inversion.wiener(y, k, 0.1), [(2, 1, 3, 4, 5), (1, 3, 3)],
               (2, 1, 3, 4, 5)),
}  # fmt: skip
every_operator = pytest.mark.parametrize("name", OPERATORS)
on_tensors = pytest.mark.parametrize("name", [name for name in OPERATORS if OPERATORS[name][1]])


def operator(name):
    function, shapes, _ = OPERATORS[name]
    return function, [values(*shape, seed=seed) for seed, shape in enumerate(shapes)]


def test_every_operator_is_tested():
    shared = {"fast_length", "outside", "require_fit", "require_room", "transfer_function"}
    exported = [name for name in ops.__all__ if inspect.isfunction(getattr(ops, name))]
    for module in (blur, inversion):
        functions = inspect.getmembers(module, inspect.isfunction)
        own = [name for name, f in functions if f.__module__ == module.__name__]
        exported += [name for name in own if not name.startswith("_") and name not in shared]
    assert sorted(exported) == [*OPERATORS]


@every_operator
def test_shapes_and_types(name):
    function, tensors = operator(name)
    for dtype in (torch.float32, torch.float64) if tensors else (torch.float32,):
        found = function(*(x.to(dtype) for x in tensors))
        assert found.shape == OPERATORS[name][2]
        assert found.dtype == dtype
        assert found.isfinite().all()


@on_tensors
def test_gradients(name):
    function, tensors = operator(name)
    assert torch.autograd.gradcheck(function, [x.requires_grad_() for x in tensors])


@on_tensors
def test_strides_do_not_matter(name):
    function, tensors = operator(name)
    apart = [torch.stack([x, -x], -1)[..., 0] for x in tensors]
    turned = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in tensors]
    assert not any(x.is_contiguous() for x in apart)
    expected = function(*tensors)
    for strided in (apart, turned):
        torch.testing.assert_close(function(*strided), expected)


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@on_tensors
@torch.no_grad()
def test_compiled_gives_the_same(name):
    function, tensors = operator(name)
    compiled = torch.compile(function, backend="eager")
    torch.testing.assert_close(compiled(*tensors), function(*tensors))
