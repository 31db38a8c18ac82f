"""`unpool render`, on small models."""

import filecmp
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from unpool.cli import main
from unpool.rendering.dataset import AZIMUTHS, ELEVATIONS, open_chairs, read_views
from unpool.rendering.parametric import build_chair, random_shape
from unpool.rendering.render import render_views
from unpool.vision.images import read_image

pytest.importorskip("embreex")

BOX = (
    "".join(f"v {x} {y} {z}\n" for x in (0, 1) for y in (0, 2) for z in (0, 1))
    + "f 1 2 4 3\nf 5 7 8 6\nf 1 5 6 2\nf 3 4 8 7\nf 1 3 7 5\nf 2 6 8 4\n"
)


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*args):
        code = main(["render", *map(str, args)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def models(tmp_path):
    with zipfile.ZipFile(tmp_path / "models.zip", "w") as archive:
        archive.writestr("set/good/good.obj", "mtllib good.mtl\nusemtl a\n" + BOX)
        archive.writestr("set/good/good.mtl", "newmtl a\nKd 1 0 0\nmap_Kd gone.jpg\n")
        archive.writestr("set/bad/bad.obj", "v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
        records = [{"id": "good", "obj": "good.obj", "creator": "Ann", "library": "Scopia"}]
        archive.writestr("set/manifest.json", json.dumps(records))
    return tmp_path / "models.zip"


def test_models_that_fail_are_named_and_skipped(run, models):
    code, out, err = run(models, "-o", "data", "--size", 16)
    assert code == 3
    assert "set/bad/bad.obj: has points that are not finite" in err
    assert "without gone.jpg, missing, broken or too large" in out
    assert "1 of 2 rendered, into data" in out
    chairs = open_chairs("data")
    assert chairs.styles == ("good",)
    images = read_views(chairs, 16)
    assert (images[images[..., 3] > 0][:, 0] > 50).all()
    [about] = json.loads(Path("data/styles.json").read_text())
    assert about == {"style": "good", "creator": "Ann", "library": "Scopia", "license": "CC-BY 3.0"}


def test_nothing_is_left_where_nothing_can_be_drawn(run, tmp_path):
    (tmp_path / "bad.obj").write_text("v 0 0 zero\nf 1 1 1\n")
    code, _, err = run(tmp_path / "bad.obj", "-o", "data")
    assert code == 3
    assert "bad.obj: has a damaged line, 'v 0 0 zero'; export it again" in err
    assert not Path("data").exists()


def test_lines_of_json(run, models):
    code, out, err = run(models, "-o", "data", "--size", 8, "--json")
    bad, good = map(json.loads, out.splitlines())
    assert (code, err) == (3, "")
    assert bad["source"] == "set/bad/bad.obj"
    assert "not finite" in bad["error"]
    assert good["views"] == 62
    assert good["faces"] == 12
    assert good["missing"] == ["gone.jpg"]
    assert read_image(f"{good['folder']}/renders/image_000_p020_t000_r096.png").shape == (8, 8, 3)


def test_the_same_set_twice_is_the_same(run, models):
    for folder in ("one", "two"):
        assert run(models, "-o", folder, "--size", 16, "--quiet")[:2] == (3, "")
        assert run("--parametric", 1, "-o", folder, "--size", 16, "--quiet") == (0, "", "")
    first, second = open_chairs("one"), open_chairs("two")
    assert first.styles == ("good", "parametric_000")
    for a, b in zip(first.views, second.views, strict=True):
        assert filecmp.cmp(a.path, b.path, shallow=False)
    assert filecmp.cmp("one/styles.json", "two/styles.json", shallow=False)


def test_parametric_chairs_are_those_of_the_seed(run):
    code, out, _ = run("--parametric", 2, "--seed", 7, "-o", "data", "--size", 8)
    assert code == 0
    assert out.splitlines()[-1] == "2 of 2 rendered, into data"
    images = read_views(open_chairs("data"), 8)
    for number in range(2):
        views = [(a, e) for e in ELEVATIONS for a in AZIMUTHS]
        drawn = list(render_views(build_chair(random_shape(7, number)), views, 8))
        assert np.array_equal(images[62 * number :][:62], drawn)


def test_a_zip_file_that_climbs_out(run, tmp_path):
    with zipfile.ZipFile("bad.zip", "w") as archive:
        archive.writestr("../../evil.obj", BOX)
    code, _, err = run("bad.zip", "-o", "data")
    assert code == 2
    assert "'../../evil.obj', which leads out of its folder; nothing was unpacked" in err
    assert not list(tmp_path.parent.rglob("evil.obj"))


def test_wrong_usage(run, models):
    for args, words in [
        ([], "wanted either models or --parametric N"),
        ([models, "--parametric", 2], "wanted either models or --parametric N"),
        ([models, "--seed", 2], "got --seed with models"),
        (["--parametric", 2, "--up", "z"], "got --up with --parametric"),
        (["nowhere"], "got nowhere, which is not there"),
        ([models, "--size", 4], "4 is not in the range"),
    ]:
        code, out, err = run(*args, "-o", "data")
        assert (code, out) == (2, "")
        assert words in err
        assert len(err.splitlines()) == 1


def test_what_is_rendered_otherwise_is_printed(run, tmp_path):
    names = "abcdefg"
    faces = "".join(f"usemtl {name}\nf 1 2 4 3\n" for name in names)
    (tmp_path / "glass.obj").write_text("mtllib glass.mtl\n" + BOX + faces)
    glass = "".join(f"newmtl {name}\nKd 1 0 0\nd 0.5\n" for name in names)
    (tmp_path / "glass.mtl").write_text(glass)
    code, out, _ = run(tmp_path / "glass.obj", "-o", "data", "--size", 8)
    assert code == 0
    assert out.count("has opacity 0.5, and is rendered opaque") == 5
    assert "and 2 more notes, which --json lists" in out
    _, out, _ = run(tmp_path / "glass.obj", "-o", "data", "--size", 8, "--json")
    assert len(json.loads(out)["notes"]) == 7
