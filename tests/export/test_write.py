"""Exported networks against PyTorch, run by the engines they are for."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unpool.cards import find_partner, read_card
from unpool.cli import main
from unpool.devices import bf16_pays
from unpool.errors import OptionError, ShapeError, WeightsError
from unpool.export import write as module
from unpool.export.graph import fixed_side
from unpool.export.runtime import Exported, is_exported
from unpool.export.write import FORMATS, export
from unpool.models import FCN, DeconvNet, from_pretrained, prepare, save_pretrained
from unpool.segment.ensemble import EDeconvNet
from unpool.segment.segmenter import Segmenter
from unpool.vision.images import read_mask

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

ENDINGS = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2"}
CARD = {
    "classes": ["background", "cat", "dog", "cow"],
    "palette": [[0, 0, 0], [1, 2, 3], [4, 5, 6], [7, 8, 9]],
    "input": {"mean": [90.0, 100.0, 110.0]},
    "long_side": 60,
    "mode": "whole",
    "aggregate": "mean",
    "presence_threshold": 0.01,
    "license": "none",
}
# an export takes some seconds, so not all are made each time
PAIRS = [
    ("free", "onnx"),
    ("code", "openvino"),
    ("fcn", "onnx"),
    pytest.param("free", "openvino", marks=pytest.mark.slow),
    pytest.param("code", "onnx", marks=pytest.mark.slow),
    pytest.param("fcn", "openvino", marks=pytest.mark.slow),
]
NETS = {
    "free": lambda: DeconvNet(4, ((1, 4), (1, 6)), None, 32),
    "code": lambda: DeconvNet(4, ((1, 4), (2, 6)), 8, 16),
    "fcn": lambda: FCN(4, ((1, 4), (1, 8), (1, 8)), 16, stride=4, pad=1, window=3),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory, filled) -> dict[str, Path]:
    """Folders of weights, by the names of networks."""
    root = tmp_path_factory.mktemp("weights")
    return {
        name: save_pretrained(filled(net(), seed), root / name, CARD)
        for seed, (name, net) in enumerate(NETS.items(), start=1)
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory, weights):
    """Exported networks, by name and format, each made once.

    Random weights have no margins: rounding moves a switch here and there, most of all where
    photos are flat. So they are verified on noise only, and less strictly.
    """
    root = tmp_path_factory.mktemp("exports")

    def give(name: str, kind: str) -> Path:
        path = root / f"{name}{ENDINGS[kind]}"
        if not path.exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(module, "_photos", list)
                patch.setattr(module, "TOLERANCE", 2e-3)
                export(weights[name], path)
        return path

    return give


@pytest.fixture
def copied(exported, tmp_path):
    """Copy the files of an exported network, to be harmed."""

    def copy(name: str, kind: str) -> Path:
        source = exported(name, kind)
        for path in source.parent.glob(f"{name}.*"):
            shutil.copy(path, tmp_path)
        return tmp_path / source.name

    return copy


@pytest.fixture
def quick(monkeypatch):
    """Exports of a moment, for what stands around them: nothing is traced or verified."""
    verified = {"images": 2, "pixels": 500, "different": 1}
    monkeypatch.setattr(module, "trace", lambda model: None)
    monkeypatch.setattr(module, "_verify", lambda *_: verified)
    for kind in ("onnx", "torch-export"):
        monkeypatch.setitem(module._WRITE, kind, lambda _, path: path.write_bytes(b"net"))


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blurred noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    resized = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.array(resized)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ---- what engines compute ------------------------------------------------------------------------


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
        options = {"mode": mode, "method": "grid", "proposals": 3}
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


def test_what_does_not_fit_is_refused(exported, weights):
    with pytest.raises(ShapeError, match=r"with H and W from 4 up"):
        Exported(exported("free", "onnx"))(torch.zeros(1, 3, 3, 40))
    with pytest.raises(ShapeError, match=r"exported for one size, \(N, 3, 16, 16\): resize"):
        Exported(exported("code", "openvino"))(torch.zeros(1, 3, 16, 17))
    with pytest.raises(
        OptionError, match=r"precision bf16 for .*free.onnx.*onnxruntime.*ends in .x"
    ):
        Exported(exported("free", "onnx"), precision="bf16")
    with pytest.raises(OptionError, match=r"precision 'fp16'; did you mean 'bf16'\?"):
        Exported(exported("code", "openvino"), precision="fp16")
    with pytest.raises(OptionError, match=r"device 'cuda' for .*run on the CPU; leave it out"):
        Segmenter.from_pretrained(exported("free", "onnx"), device="cuda")
    with pytest.raises(OptionError, match=r"got exact for .*arithmetic is that of openvino"):
        Segmenter.from_pretrained(exported("code", "openvino"), exact=True)
    with pytest.raises(OptionError, match="for an exported network; pass them to Exported"):
        Segmenter(Exported(exported("free", "onnx")), CARD["classes"], precision="fp32")
    with pytest.raises(WeightsError, match=r"free.onnx, an exported network, which only segments"):
        from_pretrained(exported("free", "onnx"))


def test_pt2_is_written_and_not_read(exported):
    """Reading one can run code; PyTorch itself runs what was written."""
    path = exported("fcn", "torch-export")
    for load in (Exported, Segmenter.from_pretrained):
        with pytest.raises(WeightsError, match=r"fcn.pt2, .* not read here; export to .onnx or"):
            load(path)
    assert read_card(path)["exports"]["torch-export"]["verified"]["pixels"] > 0


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
    Exported(exported("free", "onnx"))
    Exported(exported("code", "openvino"))
    assert seen == [3, 3]


# ---- the card ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "size"),
    [
        ("free", "onnx", "any size from 4"),
        ("code", "openvino", "16 x 16"),
        ("fcn", "torch-export", "any size from 8"),
    ],
)
def test_the_card_is_that_of_the_weights_and_says_more(weights, exported, name, kind, size):
    path = exported(name, kind)
    before, card = read_card(weights[name]), read_card(path)
    about = card.pop("exports")[kind]
    assert card == before
    assert list(about["sha256"]) == ([".xml", ".bin"] if kind == "openvino" else [path.suffix])
    for ending, digest in about["sha256"].items():
        data = path.with_suffix(ending).read_bytes()
        assert digest == hashlib.sha256(data).hexdigest()
        assert str(Path(__file__).parents[1]).encode() not in data  # no names of own files
    assert about["input"] == f"any number of images of {size} pixels"
    assert {"unpool", "torch"} <= set(about["versions"])
    assert about["verified"]["images"] >= 2
    assert about["verified"]["different"] <= 2e-3 * about["verified"]["pixels"]


def test_formats_share_a_card(weights, tmp_path, quick):
    export(weights["fcn"], tmp_path / "net.pt2")
    before = read_card(tmp_path / "net.card.json")
    export(weights["fcn"], tmp_path / "net.onnx")
    card = read_card(tmp_path / "net.card.json")
    assert card.pop("exports").keys() == {"onnx", "torch-export"}
    assert before.pop("exports").keys() == {"torch-export"}
    assert card == before
    assert names(tmp_path) == {"net.pt2", "net.onnx", "net.card.json"}


def test_what_is_written(exported):
    """A file, and a card; in it no operator that engines do not have."""
    path = exported("free", "onnx")
    others = (".xml", ".bin", ".pt2")
    assert {p.name for p in path.parent.glob("free.*") if p.suffix not in others} == {
        "free.onnx",
        "free.card.json",
    }
    assert not list(path.parent.glob(".*"))
    import onnx

    graph = onnx.load(path).graph
    axes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
            for v in (*graph.input, *graph.output)]  # fmt: skip
    assert axes == [["batch", 3, "height", "width"], ["batch", 4, "height", "width"]]
    assert {"MaxPool", "MaxUnpool", "ScatterND", "ScatterElements"}.isdisjoint(
        node.op_type for node in graph.node
    )


def test_a_partner_is_found_from_the_exports_place(weights, tmp_path, quick):
    net, fcn = tmp_path / "net", tmp_path / "fcn8s"
    save_pretrained(from_pretrained(weights["free"])[0], net, {**CARD, "partner": "../fcn8s"})
    save_pretrained(from_pretrained(weights["fcn"])[0], fcn, CARD)
    export(net, tmp_path / "deep/er/net.pt2")
    assert find_partner(tmp_path / "deep/er/net.pt2").samefile(fcn)


def test_an_ensemble_of_exported_networks(exported):
    both = EDeconvNet.from_pretrained(exported("free", "onnx"), exported("fcn", "onnx"))
    assert both(photo(30, 40), proposals=2, method="grid").labels.shape == (30, 40)


# ---- files that are no good ----------------------------------------------------------------------


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


def test_what_is_missing_is_named(copied, tmp_path):
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
        ({"architecture": "Transformer"}, "names the architecture 'Transformer', which does not s"),
        ({"arguments": {"depth": 3}}, "has arguments that do not fit: .*depth.*; export it again"),
        ({"classes": ["cat"]}, "got classes .* in the card of .*; wanted 4 names"),
    ],
)
def test_cards_of_other_kinds_are_refused(copied, change, message):
    path = copied("free", "onnx")
    card = path.with_suffix(".card.json")
    card.write_text(json.dumps({**json.loads(card.read_text()), **change}))
    with pytest.raises(WeightsError, match=message):
        Segmenter.from_pretrained(path)


# ---- what cannot be exported ---------------------------------------------------------------------


def test_an_export_with_other_labels_leaves_nothing(weights, tmp_path, filled, monkeypatch):
    monkeypatch.setattr(module, "_photos", list)
    other = filled(NETS["fcn"](), seed=9)
    monkeypatch.setattr(module, "trace", lambda model, trace=module.trace: trace(other))
    (tmp_path / "kept.txt").touch()
    wanted = (
        r"^net.pt2 gives other labels than PyTorch at \d+ of 5100 pixels \(\d+\.\d+%\) of 2 "
        r"images, more than 0\.01%; nothing was kept: try another format"
    )
    with pytest.raises(WeightsError, match=wanted):
        export(weights["fcn"], tmp_path / "net.pt2")
    assert names(tmp_path) == {"kept.txt"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_export_leaves_nothing(weights, tmp_path, quick, monkeypatch, error):
    def write(program, path):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setitem(module._WRITE, "torch-export", write)
    with pytest.raises(type(error)):
        export(weights["fcn"], tmp_path / "new" / "newer" / "net.pt2")
    assert names(tmp_path) == set()
    (tmp_path / "kept").mkdir()
    with pytest.raises(type(error)):
        export(weights["fcn"], tmp_path / "kept" / "net.pt2")
    assert names(tmp_path) == {"kept"}


def test_files_are_not_overwritten(copied, weights, tmp_path):
    path = copied("fcn", "torch-export")
    path.with_suffix(".onnx").unlink(missing_ok=True)
    (tmp_path / "fcn.bin").write_bytes(b"another's")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    for ending, there in ((".pt2", "fcn.pt2"), (".xml", "fcn.bin")):
        with pytest.raises(OptionError, match=rf"{there} is there already; choose another name"):
            export(weights["fcn"], path.with_suffix(ending))
    with pytest.raises(OptionError, match=r"fcn.card.json is there already, of other weights"):
        export(weights["free"], path.with_suffix(".onnx"))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_names_and_formats(weights, tmp_path):
    known = r"onnx \(\.onnx\), openvino \(\.xml\), torch-export \(\.pt2\)"
    with pytest.raises(OptionError, match="got format 'tflite'; the choices are onnx, o"):
        export(weights["fcn"], tmp_path / "net.onnx", "tflite")
    with pytest.raises(OptionError, match=f"net.xml for format onnx; the formats and .* {known}"):
        export(weights["fcn"], tmp_path / "net.xml", "onnx")
    with pytest.raises(OptionError, match=f"got .*net; the formats and .* {known}"):
        export(weights["fcn"], tmp_path / "net")
    assert names(tmp_path) == set()


def test_weights_that_cannot_be_exported(weights, exported, tmp_path, monkeypatch):
    net, card = from_pretrained(weights["free"])
    raw = save_pretrained(net, tmp_path / "raw", {"ready": False, "note": "network to be trained"})
    with pytest.raises(WeightsError, match=r"raw, a network to be trained"):
        export(raw, tmp_path / "net.onnx")
    with pytest.raises(WeightsError, match="got weights 'nothing'"):
        export("nothing", tmp_path / "net.onnx")
    with pytest.raises(WeightsError, match="an exported network, which only segments"):
        export(exported("free", "onnx"), tmp_path / "net.onnx")
    with monkeypatch.context() as patch:
        patch.setattr(module, "from_pretrained", lambda source: (torch.nn.Linear(2, 2), card))
        with pytest.raises(WeightsError, match="a Linear, which does not segment"):
            export("linear", tmp_path / "net.onnx")
    monkeypatch.setattr(module, "LARGEST", 1000)
    with pytest.raises(OptionError, match=r"an ONNX file, at most 2 GB; choose the format torch-e"):
        export(weights["free"], tmp_path / "net.xml")
    assert names(tmp_path) == {"raw"}


@pytest.mark.parametrize(
    ("ending", "package"),
    [(".onnx", "onnxscript"), (".onnx", "onnxruntime"), (".xml", "openvino"), (".xml", "onnx")],
)
def test_packages_that_are_not_installed(weights, tmp_path, monkeypatch, capsys, ending, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    output = tmp_path / f"net{ending}"
    assert main(["export", "--weights", str(weights["fcn"]), "-o", str(output)]) == 2
    line = capsys.readouterr().err
    assert f'needs {package}; install it: pip install "unpool[export]"' in line
    assert names(tmp_path) == set()


def test_an_engine_that_is_not_installed(exported, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(
        OptionError, match=r"free.onnx, which needs onnxruntime; .*unpool\[export\]"
    ):
        Segmenter.from_pretrained(exported("free", "onnx"))


# ---- the command line ----------------------------------------------------------------------------


def test_the_command_line(weights, tmp_path, quick, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["export", "--weights", str(weights["fcn"])]
    assert main([*command, "-o", "fcn.pt2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "file": "fcn.pt2",
        "card": "fcn.card.json",
        "format": "torch-export",
        "weights": str(weights["fcn"]),
        "input": "any number of images of any size from 8 pixels",
        "bytes": 3,
        "images": 2,
        "pixels": 500,
        "different": 1,
    }
    chosen = ["--format", "torch-export", "-o", "new/fcn.pt2"]
    assert main([*command, *chosen]) == 0
    assert capsys.readouterr() == (
        "new/fcn.pt2: torch-export, 0.0 MB, for any number of images of any size from 8 pixels; "
        "labels of 2 images verified: 1 of 500 pixels differ from PyTorch's\n",
        "",
    )
    assert main([*command, *chosen]) == 2
    assert "new/fcn.pt2 is there already" in capsys.readouterr().err
    assert main([*command, "-o", "again.pt2", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert names(tmp_path) == {"fcn.pt2", "fcn.card.json", "new", "again.pt2", "again.card.json"}


def test_exported_networks_on_the_command_line(exported, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo(45, 70)).save("cat.png")
    path = str(exported("free", "onnx"))
    assert main(["segment", "cat.png", "-o", "out", "--weights", path, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["description"] == (
        "whole images, long side 60, float32, onnxruntime, "
        "only classes with a probability of 0.01 on 1 % of the image"
    )
    assert read_mask(tmp_path / "out/cat.png").shape == (45, 70)
    Path("data/images").mkdir(parents=True)
    Path("data/masks").mkdir()
    shutil.copy("cat.png", "data/images")
    shutil.copy("out/cat.png", "data/masks")
    Path("data/classes.txt").write_text("\n".join(CARD["classes"]))
    evaluate = ["evaluate", "--data", "data", "--split", "all", "--mode", "whole", "--json"]
    assert main([*evaluate, "--weights", path]) == 0
    assert json.loads(capsys.readouterr().out)["pixel_accuracy"] == 1.0
    assert main(["info", "--weights", path, "--json"]) == 0
    assert "onnx" in json.loads(capsys.readouterr().out)["exports"]
    assert main(["segment", "cat.png", "--weights", path, "--precision", "bf16"]) == 2
    assert "onnxruntime runs in fp32; leave it out" in capsys.readouterr().err


# ---- the weights that ship -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["objects", "objects-fcn8s"])
def test_the_default_weights(tmp_path, name, kind, capsys):
    """On photos, whole and in crops."""
    output = tmp_path / f"net{ENDINGS[kind]}"
    assert main(["export", "--weights", name, "-o", str(output), "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["different"] <= 1e-4 * written["pixels"]
    assert written["pixels"] > 500_000


def test_a_folder_that_cannot_be_made_is_named(weights, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(
        OptionError, match=r"file/net.pt2, whose folder cannot be made or .*another"
    ):
        export(weights["free"], tmp_path / "file/net.pt2")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
