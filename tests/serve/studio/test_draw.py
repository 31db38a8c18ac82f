"""The API of the page Draw gives the bytes of the command line and the pixels of Python."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from tests.serve.conftest import wait_until
from unpool.cli import main
from unpool.generate import (
    GeneratedImage,
    Generator,
    activate_units,
    morph,
    morph_fractions,
    turntable,
)
from unpool.generate.sequences import encode_changes
from unpool.models import GenerativeNet, save_pretrained
from unpool.serve.app import make_app
from unpool.serve.applications import Models
from unpool.serve.studio.studio import Settings

NAMES = ["armchair", "bar=stool", "stool"]


@pytest.fixture(scope="module")
def chairs(tmp_path_factory) -> str:
    torch.manual_seed(0)
    net = GenerativeNet(3, 32, 2, 28, code=8, shared=12, widths=(6, 5), mask_widths=(4, 3))
    for name, values in net.named_parameters():
        torch.nn.init.normal_(values, 0.02, 0.5 if "fc" in name else 0.1)
    torch.nn.init.constant_(net.mask.fc5.bias, 2.0)  # so that there is an object
    folder = tmp_path_factory.mktemp("generated") / "tiny"
    return str(save_pretrained(net, folder, {"styles": NAMES}))


@pytest.fixture(scope="module")
def api(chairs, weights):
    """A client of the routes of the page."""
    app = make_app(Models(weights, chairs), load=lambda: None, studio=Settings())
    with TestClient(app, "http://127.0.0.1", raise_server_exceptions=False) as client:
        wait_until(lambda: app.service.engine.ready)
        yield client


@pytest.fixture(scope="module")
def address(api):
    return api.get("/api/chairs").json()["address"]


@pytest.fixture
def generator(chairs):
    return Generator.from_pretrained(chairs)


def command(tmp_path, chairs, name, *args):
    """The file that a command of `unpool generate` writes."""
    given = [*map(str, args), "--weights", chairs, "-o", str(tmp_path / name), "--quiet"]
    assert main(["generate", *given]) == 0
    return (tmp_path / name).read_bytes()


def frames(answer):
    """The images on a sprite sheet."""
    facts = json.loads(answer.headers["x-unpool-facts"])
    sheet = np.asarray(Image.open(io.BytesIO(answer.content)))
    rows, columns = -(-facts["frames"] // facts["columns"]), facts["columns"]
    height, width = sheet.shape[0] // rows, sheet.shape[1] // columns
    cells = [
        sheet[y * height : (y + 1) * height, x * width : (x + 1) * width]
        for y in range(rows)
        for x in range(columns)
    ]
    return cells[: facts["frames"]], facts


def shown(cells):
    """Transparent images on white."""
    return [GeneratedImage(cell).on() for cell in cells]


def test_describe(api, generator):
    found = api.get("/api/chairs").json()
    assert found["styles"] == NAMES
    assert found["elevations"] == [20, 30]
    assert {"name": "zoom", "low": 0.0, "high": np.log(1.8)} in found["changes"]
    assert {"name": "stretch", "low": -np.log(1.5), "high": np.log(1.5)} in found["changes"]
    assert {"name": "shared.fc4", "units": 12} in found["layers"]


@pytest.mark.parametrize(
    "options",
    [
        {"style": "1"},
        {"style": "bar=stool", "azimuth": "45", "elevation": "70", "scale": "2"},
        {"style": "0=1,2=-1,1=1", "change": ["hue=1", "angle=0.2"], "background": "#102030"},
    ],
    ids=str,
)
def test_a_view_is_the_file_of_the_command(api, address, chairs, tmp_path, options):
    answer = api.get(f"{address}/view.png", params=options)
    texts = [(k, v) for k, v in options.items() if isinstance(v, str)]
    texts += [("change", v) for v in options.get("change", [])]
    args = [part for name, value in texts for part in (f"--{name}", value)]
    assert answer.content == command(tmp_path, chairs, "view.png", "view", *args)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    notes = json.loads(answer.headers["x-unpool-facts"])["notes"]
    assert ("elevation 70" in str(notes)) == (options.get("elevation") == "70")


def test_a_turn_on_one_sheet(api, address, generator):
    query = {"style": "2", "elevation": "40", "frames": "11", "change": "hue=1"}
    found, facts = frames(api.get(f"{address}/sheet.webp", params=query))
    images = turntable(generator, 2, 40, 11, transformation=encode_changes([("hue", 1.0)]))
    assert np.array_equal(shown(found), [image.on() for image in images])
    assert facts["at"] == [360 * i / 11 for i in range(11)]
    assert facts["columns"] == 8
    assert "elevation 40" in facts["notes"][0]


def test_a_morph_on_one_sheet(api, address, generator):
    query = {"from": "0", "to": "0=0.5,2=0.5", "azimuth": "30", "frames": "5"}
    found, facts = frames(api.get(f"{address}/sheet.webp", params=query))
    last = {0: 0.5, 2: 0.5}
    images = morph(generator, 0, last, morph_fractions(5), azimuth=30)
    assert np.array_equal(shown(found), [image.on() for image in images])
    assert facts["at"] == morph_fractions(5)


def test_films_are_the_files_of_the_commands(api, address, chairs, tmp_path):
    turn = {"style": "1", "frames": "6", "elevation": "30", "change": "zoom=0.2", "fps": "10"}
    given = {"style": 1, "count": 6, "elevation": 30, "change": "zoom=0.2", "fps": 10}
    args = [part for name, value in given.items() for part in (f"--{name}", value)]
    answer = api.get(f"{address}/film.gif", params=turn)
    assert answer.content == command(tmp_path, chairs, "turn.gif", "interpolate", *args)
    query = {"from": "0", "to": "1", "frames": "4", "azimuth": "10", "background": "gray"}
    given = {"from": 0, "to": 1, "count": 4, "azimuth": 10, "background": "gray", "scale": 2}
    args = [part for name, value in given.items() for part in (f"--{name}", value)]
    answer = api.get(f"{address}/film.gif", params={**query, "scale": "2"})
    assert answer.content == command(tmp_path, chairs, "morph.gif", "morph", *args)
    assert Image.open(io.BytesIO(answer.content)).n_frames == 6


def test_all_styles_on_one_sheet(api, address, generator):
    found, _ = frames(api.get(f"{address}/styles.webp?elevation=30"))
    images = generator.generate(NAMES, 301, 30)
    assert np.array_equal(shown(found), [image.on() for image in images])


@pytest.mark.parametrize(("layer", "units"), [("shared.fc4", range(12)), ("rgb.stages.0", [2, 3])])
def test_units(api, address, generator, layer, units):
    query = {"layer": layer, "first": units[0], "count": len(units)}
    answer = api.get(f"{address}/units.webp", params=query)
    facts = json.loads(answer.headers["x-unpool-facts"])
    sheet = np.asarray(Image.open(io.BytesIO(answer.content)))
    width, height = facts["size"]
    images = activate_units(generator, layer, list(units)).images()
    assert facts["units"] == list(units)
    for place, image in enumerate(images):
        row, column = divmod(place, facts["columns"])
        part = sheet[row * height : (row + 1) * height, column * width : (column + 1) * width]
        assert np.array_equal(part, image)


@pytest.mark.parametrize(
    ("address_of", "status", "message"),
    [
        ("{}/view.png?style=7", 422, "got style 7; wanted an index, 0 to 2"),
        ("{}/view.png?style=1&change=twist=1", 422, "got the change 'twist'"),
        ("{}/view.png", 422, "got no style"),
        ("{}/sheet.webp?style=0&frames=1000", 422, "wanted a whole number from 2 to 64"),
        ("{}/sheet.webp?style=0&to=1", 422, "got no from"),
        ("{}/sheet.webp?style=0&from=1&to=1", 422, "got style with from"),
        ("{}/sheet.webp?style=0&azimuth=1", 422, "for a turn"),
        ("{}/film.gif?style=0&background=nocolor", 422, "got the color"),
        ("{}/units.webp?layer=fc9", 422, "got layer 'fc9'"),
        ("{}/units.webp?first=12", 422, "got unit 12"),
        ("{}/other.png", 404, "load the page again"),
        ("/api/chairs/0-1234/view.png?style=0", 404, "load the page again"),
    ],
)
def test_refusals(api, address, address_of, status, message):
    answer = api.get(address_of.format(address))
    assert (answer.status_code, message in answer.json()["error"]) == (status, True), answer.text
    assert answer.headers["cache-control"] == "no-store"
