"""Programs: what they compute is in `test_export.py`; here, what a file may ask of who reads it."""

import io
import json
import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

from unpool.errors import WeightsError
from unpool.export import graph
from unpool.export.graph import fixed_side, least_side, load_program, trace
from unpool.models import FCN, DeconvNet

TABLE = ((1, 4), (1, 6))


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def program(tmp_path_factory, filled) -> Path:
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    torch.export.save(trace(filled(DeconvNet(3, TABLE[:1], None, 32))), path)
    return path


def change(source: Path, target: Path, ending: str, data: bytes | None) -> None:
    """Copy an archive with another content of the member of that ending, or another member."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            if not name.endswith(ending):
                new.writestr(name, old.read(name))
        if data is not None:
            new.writestr(f"{root}/{ending}", data)


def member(source: Path, ending: str) -> bytes:
    with zipfile.ZipFile(source) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith(ending)))


def test_sizes():
    assert fixed_side(DeconvNet(2, TABLE, 4, 40)) == 40
    assert fixed_side(DeconvNet(2, TABLE, None, 40)) is None
    assert fixed_side(FCN(2, (*TABLE, (1, 4)), 4, 4)) is None
    assert least_side(DeconvNet(2, TABLE, None, 40)) == 4


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
def test_a_program_computes_what_the_network_does(program, filled):
    net = filled(DeconvNet(3, TABLE[:1], None, 32))
    run = load_program(program)
    for shape in [(1, 3, 2, 2), (2, 3, 35, 21), (1, 3, 64, 9)]:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 50
        assert (run(x).argmax(1) == net(x).argmax(1)).float().mean() > 0.995


def test_an_unchanged_copy_is_read(program, tmp_path):
    """So that it is the change that is refused below."""
    change(program, tmp_path / "net.pt2", "byteorder", b"little")
    graph._require_harmless(tmp_path / "net.pt2")


CONFIG = "data/weights/model_weights_config.json"
GRAPH = "models/model.json"


@pytest.mark.parametrize(
    ("ending", "old", "new", "message"),
    [
        (CONFIG, '"use_pickle": false', '"use_pickle": true', r"weight_\d+, which is pickled"),
        (GRAPH, '"torch.ops.aten.conv2d.default"', '"torch.hub.load"', "operator torch.hub.load"),
        (GRAPH, '"torch.ops.aten.conv2d.default"', '"#evil:run"', "the operator #evil:run"),
        (GRAPH, "aten.relu_.default", "aten.from_file.default", r"operator .*from_file.default"),
        (GRAPH, '"_operator.add"', '"_operator.methodcaller"', "operator _operator.methodcaller"),
        (GRAPH, '"expr_str": "Mul(', '"expr_str": "eval(chr(49)', r"the expression eval\(chr"),
        (GRAPH, '"expr_str": "Mul(', '"expr_str": "Mul.__class__(', "the expression Mul.__class"),
        (GRAPH, '"range_constraints": {', '"range_constraints": {"eval(1)": {},', r"symbol eval"),
    ],
)
def test_what_would_be_run_is_refused(program, tmp_path, ending, old, new, message):
    text = member(program, ending).decode()
    assert old in text
    change(program, tmp_path / "net.pt2", ending, text.replace(old, new, 1).encode())
    with pytest.raises(WeightsError, match=rf"holds more than a network: .*{message}.*: take one"):
        load_program(tmp_path / "net.pt2")


def test_nothing_is_unpickled(program, tmp_path):
    """Each place where torch.export.load would do so."""
    trap, path = tmp_path / "sprung", tmp_path / "net.pt2"
    buffer = io.BytesIO()
    torch.save(Trap(trap), buffer)
    config = json.loads(member(program, CONFIG))
    name = next(iter(config["config"]))
    config["config"][name]["path_name"] = "opaque_obj_0"
    places = {
        "data/sample_inputs/model.pt": buffer.getvalue(),
        "data/weights/model.pt": buffer.getvalue(),
        "data/constants/model.pt": buffer.getvalue(),
        "data/constants/opaque_obj_0": pickle.dumps(Trap(trap)),
        "data/constants/custom_obj_0": pickle.dumps(Trap(trap)),
        "data/aotinductor/model/lib.so": b"\x7fELF",
        "extra/code.py": b"",
    }
    for place, data in places.items():
        change(program, path, place, data)
        with pytest.raises(WeightsError, match="holds more than a network"):
            load_program(path)
    assert not trap.exists()
    torch.load(buffer := io.BytesIO(buffer.getvalue()), weights_only=False)
    assert trap.exists()  # as it would have been


def test_a_member_twice_is_refused(program, tmp_path):
    path = tmp_path / "net.pt2"
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        with warnings.catch_warnings(action="ignore"):
            new.writestr(old.namelist()[0], b"")
    with pytest.raises(WeightsError, match="holds more than a network"):
        load_program(path)
