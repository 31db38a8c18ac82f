import json
from pathlib import Path


def test_errors_are_counted_and_listed(run, labeled):
    code, out, _ = run("check", labeled, "--json")
    report = json.loads("\n".join(out))
    assert (code, report["ok"]) == (0, True)
    code, out, err = run("check", labeled)
    assert (code, err) == (0, [])
    assert any(line.startswith("1 cat") for line in out)
    Path("data/masks/5.png").unlink()
    code, out, err = run("check", labeled, "--split", "all", "--json")
    assert (code, len(out), json.loads(out[0])["ok"]) == (2, 1, False)
    assert err == ["unpool: data has 1 error; correct, and check again"]
    code, out, _ = run("check", labeled, "--split", "all")
    assert code == 2
    assert out[0].startswith("error: masks/5")
    assert run("check", labeled, "--split", "all", "--quiet") == (2, [], err)
