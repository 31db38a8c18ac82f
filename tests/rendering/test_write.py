"""Collections of models: their names, manifests, and the folders rendered from them."""

import json
import zipfile

import numpy as np
import pytest

from unpool.errors import DataError, OptionError
from unpool.rendering.dataset import AZIMUTHS, ELEVATIONS, open_chairs, read_views
from unpool.rendering.parametric import ChairShape, build_chair
from unpool.rendering.render import render_views
from unpool.rendering.write import open_models, read_model, write_credits, write_style

pytest.importorskip("embreex")

TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 2 0\nf 1 2 3\n"


def put(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TRIANGLE)


@pytest.fixture
def listed(tmp_path):
    """A folder with a manifest of these records, each with its file."""

    def write(*records):
        root = tmp_path / "models"
        for record in records:
            put(root / record["id"] / record["obj"])
        (root / "manifest.json").write_text(json.dumps(records))
        return root

    return write


def styles(source):
    with open_models(source) as found:
        return {model.style: model.name for model in found}


def test_names_from_folders_and_files(tmp_path):
    for name in ["one/chair.obj", "two/a.OBJ", "two/b.ply", "top.glb", "x/one/chair.obj"]:
        put(tmp_path / name)
    for name in [".hidden/chair.obj", "one/.chair.obj", "one/notes.txt"]:
        put(tmp_path / name)
    assert styles(tmp_path) == {
        "a": "two/a.OBJ",
        "b": "two/b.ply",
        "one": "one/chair.obj",
        "one_2": "x/one/chair.obj",
        "top": "top.glb",
    }


def test_names_from_a_manifest(listed):
    root = listed({"id": "Seat 1", "obj": "a.obj"}, {"id": "seat_1", "obj": "b.obj"})
    put(root / "more" / "c.obj")
    assert styles(root) == {
        "Seat_1": "Seat 1/a.obj",
        "more": "more/c.obj",
        "seat_1_2": "seat_1/b.obj",
    }


def test_one_file_and_a_zip_file(tmp_path):
    put(tmp_path / "my chair.obj")
    assert styles(tmp_path / "my chair.obj") == {"my_chair": "my chair.obj"}
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("set/stool/s.obj", TRIANGLE)
    with open_models(tmp_path / "set.zip") as [model]:
        assert (model.style, model.name) == ("stool", "set/stool/s.obj")
        assert len(read_model(model).corners) == 1
    assert not model.path.exists()


def test_credits(listed, tmp_path):
    root = listed(
        {"id": "a", "obj": "a.obj", "name": "Stool", "creator": "Ann", "library": "Scopia"},
        {"id": "b", "obj": "b.obj", "license": "CC-BY 4.0", "library": "Scopia", "depth": "3"},
    )
    with open_models(root) as found:
        about = [model.credits() for model in found]
    assert about == [
        {
            "style": "a",
            "name": "Stool",
            "creator": "Ann",
            "library": "Scopia",
            "license": "CC-BY 3.0",
        },
        {"style": "b", "library": "Scopia", "license": "CC-BY 4.0"},
    ]
    write_credits(tmp_path, [about[1], {}])
    write_credits(tmp_path, [about[0], {"style": "b", "license": "CC0"}])
    noted = json.loads((tmp_path / "styles.json").read_text())
    assert noted == [about[0], {"style": "b", "license": "CC0"}]


def test_a_model_is_set_upright(listed):
    root = listed({"id": "a", "obj": "a.obj", "rotation": "0 -1 0 1 0 0 0 0 1"})
    with open_models(root) as [model]:
        corners = read_model(model).corners[0].tolist()
        assert corners == [[0, 0, 0], [0, 1, 0], [-2, 0, 0]]
    put(root.parent / "one.obj")
    with open_models(root.parent / "one.obj") as [model]:
        corners = read_model(model, "z").corners[0].tolist()
        assert corners == [[0, 0, 0], [1, 0, 0], [0, 0, -2]]
        with pytest.raises(OptionError, match="got up='x'"):
            read_model(model, "x")


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "\ud800", "/etc/hosts", "../../x", "C:\0"])
def test_names_in_manifests_that_are_none(listed, name):
    root = listed({"id": "a", "obj": "a.obj"})
    (root / "manifest.json").write_text(json.dumps([{"id": "a", "obj": name}]))
    with pytest.raises(DataError, match=r"leads out of its folder or cannot be a name|no models"):
        styles(root)


@pytest.mark.parametrize(
    "text",
    ["1e200 nan inf 0 0 0 0 0 1", "1 0 0", "a b c d e f g h i", "1 0 0 0 1 0 0 0 -1", "2 " * 9],
)
def test_invalid_rotations(listed, text):
    root = listed({"id": "a", "obj": "a.obj", "rotation": text})
    with open_models(root) as [model], pytest.raises(DataError, match="wanted nine numbers"):
        read_model(model)


def test_invalid_manifests(listed):
    root = listed({"id": "a", "obj": "a.obj"})
    (root / "manifest.json").write_text('[{"id": "a"}]')
    with pytest.raises(DataError, match=r"manifest.json is not a list of objects with id and obj"):
        styles(root)
    (root / "manifest.json").write_text('[{"id": "..", "obj": "../x.obj"}]')
    with pytest.raises(DataError, match="which leads out of its folder"):
        styles(root)
    for name in ("a\0", "x" * 5000):
        (root / "manifest.json").write_text(json.dumps([{"id": name, "obj": "x.obj"}]))
        with pytest.raises(DataError, match="which leads out of its folder"):
            styles(root)
    (root / "manifest.json").write_text('[{"id": "b", "obj": "b.obj"}]')
    with open_models(root) as [_, missing], pytest.raises(DataError, match=r"b.obj is missing"):
        read_model(missing)


def test_invalid_sources(tmp_path):
    with pytest.raises(DataError, match=r"which is not there; pass a .zip, a folder, or"):
        styles(tmp_path / "nowhere.zip")
    with pytest.raises(DataError, match=r"without models; wanted files ending in .obj"):
        styles(tmp_path)
    (tmp_path / "set.rar").touch()
    with pytest.raises(DataError, match=r"which is of another kind"):
        styles(tmp_path / "set.rar")


def test_a_style_is_written_and_read_back(tmp_path):
    mesh, reports = build_chair(ChairShape()), []
    count = write_style(mesh, tmp_path / "chair", 16, lambda *done: reports.append(done))
    assert count == 62 == len(reports)
    assert reports[-1] == (62, 62)
    chairs = open_chairs(tmp_path)
    views = [(view.azimuth, view.elevation) for view in chairs.views]
    assert views == [(a, e) for e in ELEVATIONS for a in AZIMUTHS]
    rendered = np.stack(list(render_views(mesh, views, 16)))
    assert np.array_equal(read_views(chairs, 16), rendered)
