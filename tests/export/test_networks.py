"""Networks exported by torch alone, without `unpool export`."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.models.test_deconvnet import layers
from tests.models.test_fcn import THIN
from unpool.models import FCN, DeconvNet

ours_not = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@torch.no_grad()
def test_torch_export_with_any_batch_and_size(filled):
    net = filled(DeconvNet(4, ((1, 4), (2, 6)), None, 32))
    free = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    program = torch.export.export(net, (torch.randn(2, 3, 20, 24),), dynamic_shapes=(free,))
    for shape in [(1, 3, 33, 18), (3, 3, 16, 40)]:
        x = torch.randn(shape)
        assert torch.allclose(program.module()(x), net(x), rtol=1e-4, atol=1e-5)


def require_same_labels(path, net, shapes):
    """The label maps are equal, but where rounding has moved a switch and two scores are close."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for seed, shape in enumerate(shapes):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 50
        expected = net(x)
        (scores,) = session.run(None, {"image": x.numpy()})
        assert scores.shape == expected.shape
        best = expected.topk(2, 1).values
        clear = (best[:, 0] - best[:, 1]).numpy() > 1e-2 * float(expected.std())
        labels = expected.argmax(1).numpy()
        assert (np.bincount(labels.ravel()) > labels.size / 50).sum() > 1  # more than one class
        same = labels == scores.argmax(1)
        assert same[clear].all()
        assert same.mean() > 0.999


def export_onnx(path, net, size, free):
    torch.onnx.export(
        net,
        (torch.randn(2, 3, *size),),
        path,
        dynamo=True,
        input_names=["image"],
        output_names=["scores"],
        dynamic_shapes=(dict.fromkeys(free, torch.export.Dim.DYNAMIC),),
        verbose=False,
    )


@ours_not
@torch.no_grad()
def test_onnx_with_any_batch_and_size(filled, tmp_path):
    pytest.importorskip("onnxruntime")
    net = filled(DeconvNet(4, ((1, 4), (2, 6)), None, 32), seed=3)
    export_onnx(tmp_path / "net.onnx", net, (40, 56), (0, 2, 3))
    shapes = [(n, 3, *size) for n in (1, 2) for size in ((40, 56), (37, 61), (8, 17))]
    require_same_labels(tmp_path / "net.onnx", net, shapes)


@ours_not
@torch.no_grad()
def test_onnx_with_a_code_and_any_batch(filled, tmp_path):
    pytest.importorskip("onnxruntime")
    net = filled(DeconvNet(4, ((1, 4), (2, 6)), 8, 16), seed=1)
    export_onnx(tmp_path / "net.onnx", net, (16, 16), (0,))
    require_same_labels(tmp_path / "net.onnx", net, [(1, 3, 16, 16), (3, 3, 16, 16)])


@pytest.mark.slow
@ours_not
@torch.no_grad()
@pytest.mark.parametrize("code", [4096, None])
def test_onnx_of_the_published_network(tmp_path, code):
    """As published, at two batch sizes; without the code, at two sizes, too."""
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    net = DeconvNet(code=code).eval()
    for layer in layers(net).values():
        nn.init.kaiming_normal_(layer.weight)
    size = (64, 96) if code is None else (224, 224)
    sizes = [size, (125, 90)] if code is None else [size]
    export_onnx(tmp_path / "net.onnx", net, size, (0, 2, 3) if code is None else (0,))
    try:
        shapes = [(n, 3, *size) for n in (1, 3) for size in sizes]
        require_same_labels(tmp_path / "net.onnx", net, shapes)
    finally:
        for file in tmp_path.iterdir():  # a gigabyte
            file.unlink()


@pytest.mark.parametrize("form", [{"pad": 1, "window": 3}, {"pad": 100}], ids=str)
@torch.no_grad()
def test_torch_export_of_an_fcn_with_any_batch_and_size(filled, form):
    net = filled(FCN(3, THIN, 4, **form))
    free = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(net, (torch.randn(2, 3, 70, 90),), dynamic_shapes=(free,))
    for shape in [(1, 3, 64, 97), (3, 3, 121, 40)]:
        x = torch.randn(shape)
        assert torch.allclose(program.module()(x), net(x), rtol=1e-4, atol=1e-5)
