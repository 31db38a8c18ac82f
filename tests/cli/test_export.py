import json

import pytest

from tests.cli.files import results
from unpool.export import write

INPUT = "any number of images of any size from 4 pixels"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Exports without tracing and verification."""
    verified = {"images": 2, "pixels": 500, "different": 1}
    monkeypatch.setattr(write, "trace", lambda model: None)
    monkeypatch.setattr(write, "_verify", lambda *_: verified)
    monkeypatch.setitem(write._WRITE, "torch-export", lambda _, path: path.write_bytes(b"net"))


def test_files_are_reported_and_not_overwritten(run, refused, weights):
    command = ["export", "--weights", weights]
    code, out, _ = run(*command, "-o", "net.pt2", "--json")
    assert code == 0
    assert json.loads(out[0]) == {
        "file": "net.pt2",
        "card": "net.card.json",
        "format": "torch-export",
        "weights": weights,
        "input": INPUT,
        "bytes": 3,
        "images": 2,
        "pixels": 500,
        "different": 1,
        "note": None,
    }
    chosen = [*command, "--format", "torch-export", "-o", "new/net.pt2"]
    assert run(*chosen)[:2] == (
        0,
        [
            f"new/net.pt2: torch-export, 0.0 MB, for {INPUT}; labels of 2 images verified: "
            "1 of 500 pixels differ from PyTorch's"
        ],
    )
    assert "new/net.pt2 is there already" in refused(*chosen)
    assert run(*command, "-o", "again.pt2", "--quiet") == (0, [], [])
    files = {
        f"{name}{end}" for name in ("net", "new/net", "again") for end in (".pt2", ".card.json")
    }
    assert results(".") == files
