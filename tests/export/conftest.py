"""Saved networks and their exports, each made once."""

import shutil
from pathlib import Path

import pytest

from tests.export.networks import CARD, ENDINGS, NETS
from unpool.export import write as module
from unpool.export.write import export
from unpool.models import save_pretrained


@pytest.fixture(scope="module")
def weights(tmp_path_factory, filled) -> dict[str, Path]:
    """Folders of weights, by the names of networks; those of SegNet-Basic are stored as int8."""
    root = tmp_path_factory.mktemp("weights")
    return {
        name: save_pretrained(filled(net(), seed), root / name, CARD, int8=name == "segnet-basic")
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
