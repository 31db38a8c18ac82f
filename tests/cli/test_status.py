"""`unpool status`."""

import json

from unpool.batch.ledger import Ledger
from unpool.batch.status import write_manifest


def test_text_and_json(run, refused, tmp_path):
    ledger = Ledger(tmp_path / "out", {})
    write_manifest(ledger, "segment", [f"{i:02}" for i in range(30)])
    ledger.add("00", "content", {}, [])
    for i in range(25):
        ledger.fail(f"{i + 1:02}", "content", "no luck")
    code, out, err = run("status", "out")
    assert (code, err) == (0, [])
    counts = ["images: 30", "done: 1", "failed: 25", "given up: 0", "left: 4"]
    assert out[:6] == ["command: segment", *counts]
    assert [line.strip() for line in out[-2:]] == ["20: no luck", "and 5 more"]
    assert sum("no luck" in line for line in out) == 20
    code, out, err = run("status", "out", "--json")
    found = json.loads(out[0])
    assert (found["images"], found["left"], len(found["failures"])) == (30, 4, 20)
    assert "no run has left its notes" in refused("status", tmp_path)
    assert "does not exist" in refused("status", "nowhere")
