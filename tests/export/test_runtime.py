"""Exported networks, run by their engines, against PyTorch."""

import hashlib
import json

import numpy as np
import pytest
import torch

from tests.export.networks import CARD, photo
from unpool.cards import read_card
from unpool.devices import bf16_pays
from unpool.errors import OptionError, ShapeError, WeightsError
from unpool.export.runtime import Exported, fixed_side, is_exported, least_side
from unpool.models import FCN, DeconvNet, from_pretrained, prepare
from unpool.segment.ensemble import EDeconvNet
from unpool.segment.segmenter import Segmenter

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

# an export takes some seconds, so not all are made each time
PAIRS = [
    ("free", "onnx"),
    ("code", "openvino"),
    ("fcn", "onnx"),
    ("segnet", "openvino"),
    ("segnet-basic", "onnx"),
    ("deeplab", "onnx"),
    ("deeplab-noup", "openvino"),
    pytest.param("free", "openvino", marks=pytest.mark.slow),
    pytest.param("code", "onnx", marks=pytest.mark.slow),
    pytest.param("fcn", "openvino", marks=pytest.mark.slow),
    pytest.param("segnet", "onnx", marks=pytest.mark.slow),
    pytest.param("segnet-basic", "openvino", marks=pytest.mark.slow),
    pytest.param("deeplab", "openvino", marks=pytest.mark.slow),
    pytest.param("deeplab-noup", "onnx", marks=pytest.mark.slow),
]


def test_sizes():
    table = ((1, 4), (1, 6))
    assert fixed_side(DeconvNet(2, table, 4, 40)) == 40
    assert fixed_side(DeconvNet(2, table, None, 40)) is None
    assert fixed_side(FCN(2, (*table, (1, 4)), 4, 4)) is None
    assert least_side(DeconvNet(2, table, None, 40)) == 4


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_labels_are_those_of_pytorch(weights, exported, name, kind):
    """Any number of images; any size, odd ones too, where the network has no code."""
    net, network = from_pretrained(weights[name])[0], Exported(exported(name, kind))
    side = fixed_side(net)
    sizes = [(side, side)] if side else [(8, 8), (37, 61), (33, 9)]
    for seed, (height, width) in enumerate(sizes):
        for n in (1, 3):
            images = np.stack([photo(height, width, seed + i) for i in range(n)])
            x = prepare(torch.from_numpy(images))
            with torch.no_grad():
                expected = net(x)
            scores = network(x)
            assert scores.shape == expected.shape
            assert scores.dtype == torch.float32
            labels = expected.argmax(1)
            two = expected.topk(2, 1).values
            clear = two[:, 0] - two[:, 1] > 1e-2 * expected.std()
            same = labels == scores.argmax(1)
            assert same[clear].all()
            assert same.float().mean() > 0.998
    assert len(labels.unique()) > 1


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_segments_as_the_weights_do(weights, exported, name, kind):
    assert is_exported(exported(name, kind))
    ours = Segmenter.from_pretrained(weights[name], precision="fp32")
    theirs = Segmenter.from_pretrained(exported(name, kind), precision="fp32")
    names = ("classes", "mean", "long_side", "mode", "aggregate", "presence_threshold", "side")
    for field in (*names, "measured_modes"):
        assert getattr(theirs, field) == getattr(ours, field), field
    assert theirs.presence_threshold == 0.01
    assert (theirs.palette == ours.palette).all()
    image = photo(45, 70)
    for mode in ours.measured_modes:
        squares = {"method": "grid", "proposals": 3} if mode == "instance" else {}
        options = {"mode": mode, **squares}
        found = theirs(image, **options).labels
        assert (found == ours(image, **options).labels).mean() > 0.998
        assert found.any()
    engine = {"onnx": "onnxruntime", "openvino": "openvino"}[kind]
    assert (
        theirs.describe("whole", presence_threshold=0)
        == f"whole images, long side 60, float32, {engine}"
    )
    if name == "fcn":
        with pytest.raises(OptionError, match="'instance' for weights of FCN, which segments whol"):
            theirs.describe("instance")


def test_unsupported_options_are_refused(exported, weights):
    with pytest.raises(ShapeError, match=r"with H and W from 4 up"):
        Exported(exported("free", "onnx"))(torch.zeros(1, 3, 3, 40))
    with pytest.raises(ShapeError, match=r"exported for one size, \(N, 3, 16, 16\): resize"):
        Exported(exported("code", "openvino"))(torch.zeros(1, 3, 16, 17))
    with pytest.raises(
        OptionError, match=r"precision bf16 for .*free.onnx.*onnxruntime.*ends in .x"
    ):
        Exported(exported("free", "onnx"), precision="bf16")
    with pytest.raises(OptionError, match=r"precision int8 for .*free.onnx.*is for weights"):
        Exported(exported("free", "onnx"), precision="int8")
    with pytest.raises(OptionError, match=r"precision 'fp16'; did you mean 'bf16'\?"):
        Exported(exported("code", "openvino"), precision="fp16")
    with pytest.raises(OptionError, match=r"device 'cuda' for .*run on the CPU; leave it out"):
        Segmenter.from_pretrained(exported("free", "onnx"), device="cuda")
    with pytest.raises(OptionError, match=r"got exact for .*arithmetic is that of openvino"):
        Segmenter.from_pretrained(exported("code", "openvino"), exact=True)
    with pytest.raises(OptionError, match="for an exported network; pass them to Exported"):
        Segmenter(Exported(exported("free", "onnx")), CARD["classes"], precision="fp32")
    with pytest.raises(
        WeightsError, match=r"free.onnx, an exported network, which can only segment"
    ):
        from_pretrained(exported("free", "onnx"))


@pytest.mark.parametrize(("name", "kind", "tile"), [("free", "onnx", 32), ("code", "openvino", 16)])
def test_tiles_are_those_of_pytorch(weights, exported, name, kind, tile):
    """Of one size where the network has a code; of any otherwise."""
    image = photo(45, 61)
    expected = Segmenter.from_pretrained(weights[name], precision="fp32").predict(
        image, mode="tiles", tile=tile
    )
    own = Segmenter.from_pretrained(exported(name, kind))
    found = own.predict(image, mode="tiles", tile=tile)
    assert found.logits.shape == (4, 45, 61)
    near = np.isclose(found.logits, expected.logits, atol=1e-2 * expected.logits.std())
    assert near.mean() > 0.99
    assert f"native resolution, float32, {own.model.engine}" in own.describe("tiles")
    if name == "code":
        with pytest.raises(OptionError, match="got tile=32 for a network that is made for 16 x 16"):
            own(image, mode="tiles", tile=32)


def test_pt2_is_written_and_not_read(exported):
    """Reading one can run code; PyTorch itself runs what was written."""
    path = exported("fcn", "torch-export")
    for load in (Exported, Segmenter.from_pretrained):
        with pytest.raises(WeightsError, match=r"fcn.pt2, .* not read here; export to .onnx or"):
            load(path)
    assert read_card(path).exports["torch-export"]["verified"]["pixels"] > 0


def test_bfloat16_is_for_openvino(exported, monkeypatch):
    import openvino

    with monkeypatch.context() as patch:
        patch.setattr(openvino.Type, "bf16", openvino.Type.f16)  # as if there were none
        with pytest.raises(OptionError, match=r"bf16 for .*, which the processor does not have"):
            Exported(exported("code", "openvino"), precision="bf16")
    if not bf16_pays(torch.device("cpu")):
        pytest.skip("the processor has no bfloat16")
    fast, exact = (Exported(exported("code", "openvino"), precision=p) for p in ("bf16", "fp32"))
    assert (fast.dtype, exact.dtype) == (torch.bfloat16, torch.float32)
    x = prepare(torch.from_numpy(photo(16, 16)[None]))
    assert 0 < (fast(x) - exact(x)).abs().mean() < 0.1 * exact(x).std()


def test_engines_take_as_many_threads_as_pytorch(exported, monkeypatch):
    import onnxruntime
    import openvino

    paths = exported("free", "onnx"), exported("code", "openvino")  # verified as they are written
    seen = []
    begin, compile_model = onnxruntime.InferenceSession, openvino.Core.compile_model

    def session(path, options, **more):
        seen.append(options.intra_op_num_threads)
        return begin(path, options, **more)

    def compiled(core, path, device, hints):
        seen.append(hints["INFERENCE_NUM_THREADS"])
        return compile_model(core, path, device, hints)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(openvino.Core, "compile_model", compiled)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for path in paths:
        Exported(path)
    assert seen == [3, 3]


def test_an_ensemble_of_exported_networks(exported):
    both = EDeconvNet.from_pretrained(exported("free", "onnx"), exported("fcn", "onnx"))
    assert both(photo(30, 40), proposals=2, method="grid").labels.shape == (30, 40)


@pytest.mark.parametrize(("name", "kind"), [("free", "onnx"), ("code", "openvino")])
def test_damaged_files_are_refused(copied, name, kind):
    path = copied(name, kind)
    data = path.read_bytes()
    path.write_bytes(data[:-9] + bytes(9))
    with pytest.raises(WeightsError, match=rf"{path.name} has sha256 .* is damaged or belongs to"):
        Exported(path)
    card = path.with_suffix(".card.json")
    values = json.loads(card.read_text())
    path.write_bytes(data[: len(data) // 2])  # and now with a card that fits
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    values["exports"][kind]["sha256"][path.suffix] = digest
    card.write_text(json.dumps(values))
    with pytest.raises(WeightsError, match=rf"cannot read .*{path.name}: .*; export it again"):
        Exported(path)


def test_missing_parts_are_named(copied, tmp_path):
    path = copied("code", "openvino")
    path.with_suffix(".bin").unlink()
    with pytest.raises(WeightsError, match=r"code.xml without code.bin; copy both"):
        Exported(path)
    path.with_suffix(".card.json").unlink()
    with pytest.raises(WeightsError, match=r"code.xml without its card code.card.json; copy both"):
        Exported(path)
    with pytest.raises(WeightsError, match=r"none.onnx, which does not exist; make it with unpool"):
        Exported(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exports": None}, "which its card does not list; copy both again"),
        ({"exports": {"onnx": {"sha256": {}}}}, "which its card does not list"),
        ({"architecture": "Transformer"}, "the architecture 'Transformer'; this version knows"),
        ({"arguments": {"depth": 3}}, "has arguments that do not fit: .*depth"),
        ({"classes": ["cat"]}, "got classes .* in the card of .*; wanted 4 names"),
    ],
)
def test_cards_of_other_kinds_are_refused(copied, change, message):
    path = copied("free", "onnx")
    card = path.with_suffix(".card.json")
    card.write_text(json.dumps({**json.loads(card.read_text()), **change}))
    with pytest.raises(WeightsError, match=message):
        Segmenter.from_pretrained(path)


def test_an_engine_that_is_not_installed(exported, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(
        OptionError, match=r"free.onnx, which needs onnxruntime; .*unpool\[export\]"
    ):
        Segmenter.from_pretrained(exported("free", "onnx"))


def graph(op, given="image", gives="scores", **attributes):
    """An ONNX file of a single operator."""
    ports = [onnx.helper.make_tensor_value_info(name, 1, None) for name in (given, gives)]
    node = onnx.helper.make_node(op, [given], [gives], **attributes)
    made = onnx.helper.make_graph([node], "other", ports[:1], ports[1:])
    opset = [onnx.helper.make_opsetid("", 18)]
    return onnx.helper.make_model(made, opset_imports=opset, ir_version=9).SerializeToString()


def replaced(path, content, suffix, kind):
    """Another file with a card that agrees with it."""
    path.with_suffix(suffix).write_bytes(content)
    card = path.with_suffix(".card.json")
    values = json.loads(card.read_text())
    values["exports"][kind]["sha256"][suffix] = hashlib.sha256(content).hexdigest()
    card.write_text(json.dumps(values))
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (graph("Identity", given="x"), r"it takes \['x'\] and gives \['scores'\], rather than"),
        (graph("Identity", gives="out"), r"it takes \['image'\] and gives \['out'\]"),
        (graph("Identity"), r"got scores of \(1, 3, \d+, \d+\) .*; wanted \(1, 4, .*as its card"),
        (graph("ReduceMax", keepdims=0), r"got scores of \(\) torch.float32 .*; wanted"),
        (graph("Size"), "cannot read|got scores of"),
        (b"", "cannot read"),
        (b"no graph", "cannot read"),
    ],
)
def test_graphs_of_other_kinds_are_refused(copied, content, message):
    path = replaced(copied("free", "onnx"), content, ".onnx", "onnx")
    with pytest.raises(WeightsError, match=message):
        Segmenter.from_pretrained(path)(photo(30, 40), mode="whole")


def test_outputs_that_are_not_finite_are_refused(copied):
    path = copied("free", "onnx")
    model = onnx.load(path)
    (last,) = (node for node in model.graph.node if "scores" in node.output)
    last.output[0] = "negative"
    model.graph.node.append(onnx.helper.make_node("Reciprocal", ["nothing"], ["infinite"]))
    model.graph.node.append(onnx.helper.make_node("Mul", ["negative", "infinite"], ["scores"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1, np.float32), "nothing"))
    replaced(path, model.SerializeToString(), ".onnx", "onnx")
    with pytest.raises(WeightsError, match="got scores with NaN or infinity"):
        Segmenter.from_pretrained(path)(photo(30, 40), mode="whole")


@pytest.mark.parametrize(
    ("suffix", "harm", "message"),
    [
        (".xml", lambda data: data[:10], "cannot read .*code.xml: unclosed token"),
        (".xml", lambda data: b"<svg/>", "cannot read .*code.xml: it is not a network of OpenVINO"),
        (".xml", lambda data: b"", "cannot read .*code.xml"),
        (".bin", lambda data: data[: len(data) // 2], "cannot read .*code.xml"),
        (".bin", lambda data: b"", "cannot read .*code.xml"),
    ],
)
def test_damaged_networks_of_openvino_are_refused(copied, capfd, suffix, harm, message):
    path = copied("code", "openvino")
    replaced(path, harm(path.with_suffix(suffix).read_bytes()), suffix, "openvino")
    with pytest.raises(WeightsError, match=message):
        Exported(path)
    assert capfd.readouterr().err == ""  # engines may print, too


@pytest.mark.parametrize(
    "digests", [{".onnx": 5}, {".onnx": "0", "/../x": "0"}, {"": "0"}, [".onnx"], None]
)
def test_digests_of_other_kinds_are_refused(copied, digests):
    path = copied("free", "onnx")
    card = path.with_suffix(".card.json")
    values = json.loads(card.read_text())
    values["exports"]["onnx"]["sha256"] = digests
    card.write_text(json.dumps(values))
    with pytest.raises(WeightsError, match=r"which its card does not list|has sha256"):
        Exported(path)
