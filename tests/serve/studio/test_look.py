"""The API of the page Look inside gives what the library and the command line give."""

import io
import re

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from tests.cli.files import CLASSES, photo
from tests.serve.conftest import wait_until
from unpool.cli import main
from unpool.serve.app import make_app
from unpool.serve.studio.look import TILE
from unpool.serve.studio.studio import Settings
from unpool.vision.drawing import heat_map, to_images
from unpool.vision.figures import patch
from unpool.visualize import decode, list_layers, load_model, measure_field, project_scores
from unpool.visualize.activations import ActivationRecorder

LAYER = "trunk.stages.1"


@pytest.fixture(scope="module")
def loaded(weights):
    return load_model(weights)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "cat.png"
    photo(50, 40).save(path)
    return path


@pytest.fixture(scope="module")
def name(studio, path):
    return studio.post("/api/images", content=path.read_bytes()).json()["id"]


@pytest.fixture(scope="module")
def square(loaded, path):
    return loaded.preprocessing.crop(np.asarray(Image.open(path)))


def get(client, address):
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def post(client, name, what, **options):
    answer = client.post(f"/api/images/{name}/{what}", params=options)
    assert answer.status_code == 200, answer.text
    return answer.json()


def activations(loaded, square, layer):
    with torch.no_grad():
        return ActivationRecorder(loaded.model, [layer])(loaded.prepare([square]))[layer][0]


def test_layers(studio, loaded):
    found = studio.get("/api/layers").json()
    layers = list_layers(loaded.model, loaded.trial_image())
    assert [(e["name"], e["kind"], tuple(e["shape"])) for e in found["layers"]] == layers
    assert found["stages"][:2] == ["trunk.stages.0", "trunk.stages.1"]
    assert (found["side"], found["classes"], found["decoder"]) == (32, list(CLASSES), True)
    assert found["rules"][0] == "deconvnet"


def test_square(studio, name, square):
    assert np.array_equal(get(studio, f"/api/images/{name}/square.png"), square)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (17, 5), (31, 31)])
def test_units_at_a_pixel(studio, loaded, name, square, x, y):
    found = post(studio, name, "units", layer=LAYER, x=x, y=y, count=4)
    maps = activations(loaded, square, LAYER)
    row, column = y // 2, x // 2  # its maps have half the size
    assert (found["place"], found["map"]) == ([row, column], [16, 16])
    values = maps[:, row, column]
    order = sorted(range(len(values)), key=lambda unit: -values[unit])[:4]
    assert [one["unit"] for one in found["units"]] == order
    assert [one["value"] for one in found["units"]] == pytest.approx(values[order].tolist())
    field = measure_field(loaded.model, loaded.trial_image(), LAYER)
    assert found["box"] == list(field.box(row, column))
    assert found["box"][0] <= x < found["box"][2]
    assert found["box"][1] <= y < found["box"][3]
    sheet = get(studio, found["sheet"])
    assert sheet.shape == (TILE, 4 * TILE, 3)
    centers = (np.arange(16) + 0.5) * TILE / 16
    cells = sheet[:, TILE : 2 * TILE][centers.astype(int)][:, centers.astype(int)]
    assert np.array_equal(cells, heat_map(maps[order[1]].numpy(), "inferno"))


def test_units_without_a_pixel_are_those_of_the_strongest_cell(studio, loaded, name, square):
    found = post(studio, name, "units", layer=LAYER)
    maps = activations(loaded, square, LAYER)
    best = found["units"][0]
    assert best["value"] == pytest.approx(float(maps.max()))
    assert float(maps[best["unit"]][tuple(found["place"])]) == float(maps.max())


@pytest.mark.parametrize(
    "options",
    [
        {"layer": LAYER, "unit": 2},
        {"layer": LAYER, "unit": 3, "place": "2,3", "rule": "guided", "from": "one"},
        {"layer": "decoder.0", "unit": 1, "gray": ""},
    ],
    ids=str,
)
def test_a_projection_is_the_file_of_the_command(
    studio, weights, name, path, square, tmp_path, options
):
    found = post(studio, name, "project", **options)
    args = [part for key, value in options.items() for part in (f"--{key}", str(value)) if part]
    given = ["visualize", "project", str(path), "--weights", weights, "-o", str(tmp_path)]
    assert main([*given, *args, "--quiet"]) == 0
    file = tmp_path / f"cat.{options['layer']}.{options['unit']}.png"
    assert studio.get(found["image"]).content == file.read_bytes()
    shown = np.asarray(Image.open(file))
    assert np.array_equal(get(studio, found["patch"]), patch(square, found["box"]))
    assert np.array_equal(get(studio, found["projection"]), patch(shown, found["box"]))
    assert found["top"] is False


def test_the_score_of_a_class(studio, loaded, name, square):
    shown = post(studio, name, "decode")["classes"]
    number = max(shown, key=lambda one: one["fraction"])["id"]
    found = post(studio, name, "project", **{"class": CLASSES[number]})
    expected = project_scores(loaded.model, loaded.prepare([square]), [number])
    images = expected.images(order=loaded.preprocessing.order)
    assert np.array_equal(get(studio, found["image"]), images[0])
    assert get(studio, found["patch"]).shape == (32, 32, 3)


def test_the_decoder(studio, loaded, name, square):
    largest = post(studio, name, "decode")
    images = loaded.prepare([square])
    for one in largest["classes"]:
        found = post(studio, name, "decode", **{"class": one["name"]})
        expected = decode(loaded.model, images, one["id"])
        assert found["class"] == one["name"] == CLASSES[one["id"]]
        assert found["fraction"] == pytest.approx(one["fraction"])
        assert len(found["stages"]) == len(expected.stages) == 2
        for pair, wanted in zip(found["stages"], expected.stages, strict=True):
            for shown, map_ in zip(pair, wanted, strict=True):
                assert (shown["layer"], shown["unit"]) == (map_.layer, map_.unit)
                assert shown["size"] == list(map_.values.shape)
                pixels = heat_map(map_.values.numpy(), "inferno")
                assert np.array_equal(get(studio, shown["image"]), pixels)
        score = to_images(expected.scores[None], contrast="linear")[0]
        assert np.array_equal(get(studio, found["image"]), score)
    assert sum(one["fraction"] for one in largest["classes"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ("units", {}, "got no layer"),
        ("units", {"layer": "trunk.stage.1"}, "which the model does not have; .*trunk.stages"),
        ("units", {"layer": LAYER, "x": "far"}, "got x 'far'; wanted a whole number"),
        ("project", {"layer": LAYER, "unit": 999}, "got unit 999 of layer .*; wanted 0 to 5"),
        ("project", {"layer": LAYER, "unit": 1, "rule": "best"}, "got rule 'best'"),
        ("decode", {"class": "unicorn"}, "got class 'unicorn'"),
    ],
)
def test_what_is_refused(studio, name, what, options, message):
    answer = studio.post(f"/api/images/{name}/{what}", params=options)
    assert answer.status_code == 422
    assert re.search(message, answer.json()["error"]), answer.json()


NETS = '''
import torch
from torch import nn

def build():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 7),
    )
'''  # fmt: skip


def test_a_model_and_a_gallery_of_ones_own(models, tmp_path, monkeypatch, path):
    (tmp_path / "looknets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    model = {"torch_model": "looknets:build", "size": 24}
    given = ["--torch-model", "looknets:build", "--size", "24", "--layer", "4", "--unit", "3"]
    out = tmp_path / "top"
    assert main(["visualize", "top", str(path), *given, "-o", str(out), "--quiet"]) == 0
    app = make_app(models, load=lambda: None, studio=Settings(model, gallery=out))
    with TestClient(app, "http://127.0.0.1", raise_server_exceptions=False) as client:
        wait_until(lambda: app.service.engine.ready)
        found = client.get("/api/layers").json()
        assert (found["model"], found["side"], found["decoder"]) == ("looknets:build", 24, False)
        name = client.post("/api/images", content=path.read_bytes()).json()["id"]
        assert post(client, name, "project", layer="4", unit=3)["top"] is True
        assert post(client, name, "project", layer="4", unit=2)["top"] is False
        figure = client.get("/api/top.png", params={"layer": "4", "unit": 3})
        assert figure.content == (out / "4/0003.png").read_bytes()
        (tmp_path / "0003.png").write_bytes(b"of somebody else")
        assert client.get("/api/top.png", params={"layer": "..", "unit": 3}).status_code == 404
        scores = post(client, name, "units", layer="7", count=3)
        assert (scores["place"], scores["map"], scores["sheet"]) == (None, None, None)
        assert len(scores["units"]) == 3
        answer = client.post(f"/api/images/{name}/decode")
        assert answer.status_code == 422
        assert "no decoder is known" in answer.json()["error"]
