"""What is exported: files and cards, their verification, and refusals."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.export.networks import CARD, ENDINGS, NETS, names, photo
from unpool.cards import find_partner, read_card
from unpool.cli import main
from unpool.errors import OptionError, WeightsError
from unpool.export import write as module
from unpool.export.runtime import Exported
from unpool.export.write import FORMATS, export, trace
from unpool.models import CRFRNN, FCN, DeconvNet, DecoupledNet, from_pretrained, save_pretrained
from unpool.models.weights import build_empty
from unpool.vision.images import read_mask

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

# ---- the graph -----------------------------------------------------------------------------------

TABLE = ((1, 4), (1, 6))


@torch.no_grad()
def test_the_network_stays_as_it_is(filled):
    net = filled(DeconvNet(3, TABLE, 5, 32))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    x = torch.randn(1, 3, 32, 32)
    y = net(x)
    program = trace(net)
    assert net.trunk.form == "flat"
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert torch.equal(net(x), y)
    assert not any("stack_trace" in node.meta for node in program.graph.nodes)


@torch.no_grad()
def test_a_saved_program_computes_what_the_network_does(filled, tmp_path):
    net = filled(DeconvNet(3, TABLE[:1], None, 32))
    torch.export.save(trace(net), tmp_path / "net.pt2")
    run = torch.export.load(tmp_path / "net.pt2").module(check_guards=False)
    for shape in [(1, 3, 2, 2), (2, 3, 35, 21), (1, 3, 64, 9)]:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 50
        assert (run(x).argmax(1) == net(x).argmax(1)).float().mean() > 0.995


@torch.no_grad()
def test_of_a_crf_rnn_the_fcn_is_exported_and_the_card_says_so(filled, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_photos", list)
    net = filled(CRFRNN(4, ((1, 4), (1, 8), (1, 8)), 16, stride=4, pad=1, window=3))
    written = export(save_pretrained(net, tmp_path / "weights", CARD), tmp_path / "net.pt2")
    card = read_card(tmp_path / "net.card.json")
    assert written.note == card.note
    assert written.note.startswith("the FCN of a CRF-RNN, without its CRF")
    assert type(build_empty(card)) is FCN  # which runs the file
    run = torch.export.load(tmp_path / "net.pt2").module(check_guards=False)
    x = 50 * torch.randn(2, 3, 36, 44, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(run(x), net.net(x), rtol=1e-4, atol=1e-3)
    assert not torch.allclose(run(x), net(x), atol=0.1)


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
@torch.no_grad()
def test_a_decoupled_net_has_a_pass_for_every_class(filled, tmp_path, monkeypatch, kind):
    """In PyTorch there is one for every class that an image shows; images of the net's own size."""
    monkeypatch.setattr(module, "_photos", list)
    net = filled(DecoupledNet(4, ((1, 4), (1, 8)), 7, 8, 32, 3))
    score = net.classifier["cls-score-voc"]
    score.weight.div_(1000)
    score.bias.copy_(torch.tensor([1.0, -1.0, 1.0]))
    weights = save_pretrained(net, tmp_path / "weights", {**CARD, "long_side": 32})
    path = tmp_path / f"net{ENDINGS[kind]}"
    export(weights, path)
    run = Exported(path)
    for size in ((32, 32), (32, 21)):
        x = 50 * torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(run(x).exp(), net(x).exp(), rtol=1e-3, atol=1e-4)


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
    about = card.exports[kind]
    assert replace(card, exports={}) == before
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
    assert card.exports.keys() == {"onnx", "torch-export"}
    assert before.exports.keys() == {"torch-export"}
    assert replace(card, exports=before.exports) == before
    assert names(tmp_path) == {"net.pt2", "net.onnx", "net.card.json"}


def test_written_files(exported):
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


KILLED = """
import os, sys
from pathlib import Path
from unpool import files
from unpool.export.write import export
publish = files._publish
def killed(temporary, path, mode):
    if path.name == "net.card.json" and path.parent == Path(sys.argv[2]).parent:
        os._exit(9)
    publish(temporary, path, mode)
files._publish = killed
export(*sys.argv[1:])
"""


def test_a_killed_export_can_be_repeated(weights, tmp_path):
    path = tmp_path / "net.pt2"
    command = [sys.executable, "-c", KILLED, str(weights["fcn"]), str(path)]
    assert subprocess.run(command, check=False).returncode == 9
    drafts = {name for name in names(tmp_path) if name.startswith(".unpool-")}
    assert (len(drafts), names(tmp_path) - drafts) == (1, {"net.pt2"})
    (tmp_path / "other.pt2").touch()  # of which no draft is there
    with pytest.raises(OptionError, match="is there already; choose another name"):
        export(weights["fcn"], tmp_path / "other.pt2")
    assert export(weights["fcn"], path).different == 0
    assert names(tmp_path) == {"net.pt2", "net.card.json", "other.pt2"}


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
    with pytest.raises(WeightsError, match="an exported network, which can only segment"):
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


# ---- the command line ----------------------------------------------------------------------------


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
