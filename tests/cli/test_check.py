import json
from pathlib import Path

from PIL import Image


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


def test_a_clean_check_says_so(run, labeled):
    paths = sorted(Path("data/masks").glob("*.png"))
    code, out, _ = run("check", labeled, "--split", "all")
    assert (code, out[-1]) == (0, "no errors and 1 warning found in 6 images")
    Path("data/classes.txt").write_text("background\ncat\n")
    assert run("check", labeled, "--split", "all")[1][-1] == "no problems found in 6 images"
    (image := Image.open(paths[0])).putpalette([0, 0, 0, 9, 9, 9])
    image.save(paths[0])
    image.putpalette([9, 9, 9, 0, 0, 0])
    image.save(paths[1])
    code, out, _ = run("check", labeled, "--split", "all")
    assert code == 2
    assert "with --by-color, or trust the indices with --by-index (palettes)" in out[0]
    assert run("check", labeled, "--split", "all", "--by-index")[0] == 0
