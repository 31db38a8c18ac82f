"""`unpool visualize correspond`, on small networks."""

import json
import os
from pathlib import Path

import pytest

from tests.cli.visualize.files import names


def test_correspond(run):
    box = "--part eye=10,10,20,20"
    code, out, err = run(f"correspond in/0.png in/1.png MODEL {box} {box} --draws 2 -o out")
    assert (code, err) == (0, [])
    assert [line.split()[0] for line in out] == ["part", "eye", "random", "2"]
    assert "+-" in out[1]
    assert names("out") == {"correspondence.png", "correspondence.json"}
    rows = [("0.png", "eye"), ("1.png", "eye"), ("2.png", "nose"), ("0.png", "nose")]
    lines = [f"{name},{part},10,10,20,20" for name, part in rows]
    Path("in/boxes.csv").write_text("image,part,x0,y0,x1,y1\n" + "\n".join(lines))
    keys = ("image", "part", "x0", "y0", "x1", "y1")
    made = [dict(zip(keys, (*row, 10, 10, 20, 20), strict=True)) for row in rows]
    Path("in/boxes.json").write_text(json.dumps(made))
    result = []
    for name in ("boxes.csv", "boxes.json"):
        code, out, err = run(f"correspond --boxes in/{name} MODEL --layer 4 --draws 1 --json")
        assert (code, err) == (0, [])
        result.append(json.loads(out[0]))
    assert result[0]["agreements"] == result[1]["agreements"]
    assert {found["part"] for found in result[0]["agreements"]} == {"eye", "nose", "random"}
    assert result[0]["boxes"]["nose"].keys() == {"in/0.png", "in/2.png"}


def test_unreadable_images_are_skipped(run):
    Path("in/1.png").write_bytes(b"")
    box = "--part eye=10,10,20,20"
    text = f"correspond in/0.png in/1.png in/2.png MODEL {box} {box} {box} -o out"
    code, out, err = run(text)
    assert (code, len(err)) == (3, 1)
    assert out[-1].startswith("2 images")


def test_unusable_boxes(run):
    head = "image,part,x0,y0,x1,y1\n0.png,eye,9,9,20,20\n1.png,eye,9,9,20,20\n"
    for more, message in (
        ("./0.png,eye,1,1,9,9\n", "whose entry 3 is a second box of eye in ./0.png"),
        (f'2.png,"{"x" * 140_000}\n', "cannot be read (field larger than field limit"),
        ("0.png,random,1,1,9,9\n1.png,random,1,1,9,9\n", "got a part 'random'"),
    ):
        Path("in/boxes.csv").write_text(head + more)
        code, out, err = run("correspond --boxes in/boxes.csv MODEL --layer 4")
        assert (code, out, len(err)) == (2, [], 1)
        assert message in err[0]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("correspond in MODEL", "got no --part for 6 images"),
        ("correspond in/0.png MODEL --part a=1,1,9,9", "wanted two or more"),
        ("correspond in/0.png MODEL --part a=1,1,9", "wanted a box x0, y0, x1, y1 in pixels"),
        ("correspond in MODEL --boxes bad.csv", "got --boxes, and images or --part"),
        ("correspond MODEL --boxes bad.csv", "whose entry 1 lacks some of image, part"),
        ("correspond MODEL --boxes bad.json", "cannot be read"),
        ("correspond MODEL --boxes deep.json", "cannot be read"),
        ("correspond MODEL --boxes far.json", "wanted a box x0, y0, x1, y1 in pixels"),
        ("correspond MODEL --boxes huge.json", "wanted a box x0, y0, x1, y1 in pixels"),
        ("correspond MODEL --boxes pipe.json", "a pipe, device or socket"),
    ],
)
def test_unusable_options(refused, args, message):
    Path("bad.csv").write_text("image,x0\n0.png,3\n")
    Path("bad.json").write_text("[")
    Path("deep.json").write_text("[" * 100_000)
    box = '[{"image": "0.png", "part": "a", "x0": 0, "y0": 0, "x1": 9, "y1": %s}]'
    Path("far.json").write_text(box % "Infinity")
    Path("huge.json").write_text(box % ("1" + "0" * 400))
    os.mkfifo("pipe.json")
    assert message in refused(args)
