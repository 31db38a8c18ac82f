"""One truth: command line, Python, service and studio give the same bytes for the same options."""

import json

import pytest
from starlette.testclient import TestClient

import unpool
from tests.cli.files import photo
from unpool.cli import main
from unpool.generate import Generator, parse_style
from unpool.serve.app import make_app
from unpool.serve.applications import Models
from unpool.serve.studio.studio import Settings
from unpool.vision.images import encode_mask, encode_png
from unpool.visualize import load_model

LAYER = "trunk.stages.1"


def by_segmenting(weights, image, preset=None, ensemble=None, **options):
    segmenter = unpool.load(weights, preset=preset, ensemble=ensemble, precision="fp32")
    found = segmenter(image, **options)
    return encode_mask(found.labels, found.palette)


def by_restoring(weights, image, psf, **options):
    path = image.with_name("restored.png")
    unpool.Restorer(**options)(image, psf).save(path)
    return path.read_bytes()


def by_generating(weights, image, style, **view):
    return Generator.from_pretrained("chairs").view(parse_style(style), **view).encode()


def by_projecting(weights, image, layer, unit):
    loaded = load_model(weights)
    square = loaded.preprocessing.crop(unpool.read_image(image))
    found = unpool.project(loaded.model, loaded.prepare([square]), layer, unit)
    return encode_png(found.images(order=loaded.preprocessing.order)[0])


SETS = [
    ("segment", by_segmenting, "cat.png", {}),
    ("segment", by_segmenting, "cat.png", {"mode": "instance", "proposals": 4}),
    ("segment", by_segmenting, "cat.png", {"crf": "edeconvnet", "presence-threshold": 0.3}),
    (
        "segment",
        by_segmenting,
        "cat.png",
        {"preset": "edeconvnet", "ensemble": "product", "proposals": 4},
    ),
    ("restore", by_restoring, "cat.png", {"psf": "motion:5,30", "method": "rl", "steps": 4}),
    ("generate", by_generating, "chair.png", {"style": "0=1,3=1", "azimuth": 45, "elevation": 25}),
    ("project", by_projecting, f"cat.{LAYER}.2.png", {"layer": LAYER, "unit": 2}),
]
"""The application, how it is called from Python, the file of the command line, and the options."""


@pytest.fixture(scope="module")
def served(pair, waits):
    app = make_app(Models(pair, precision="fp32"), load=lambda: None, studio=Settings())
    with TestClient(app, "http://127.0.0.1", raise_server_exceptions=False) as client:
        waits(lambda: app.service.engine.ready)
        yield client


def by_command(weights, image, application, name, options):
    flags = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    out, quiet = image.parent / "out", "--quiet"
    network = ["--weights", weights]
    args = {
        "segment": ["segment", image, *network, "--precision", "fp32", "--no-overlay", "-o", out],
        "restore": ["restore", image, "--no-compare", "-o", out],
        "generate": ["generate", "view", "-o", out / name],
        "project": ["visualize", "project", image, *network, "-o", out],
    }
    assert main([str(arg) for arg in (*args[application], *flags, quiet)]) == 0
    return (out / name).read_bytes()


def by_studio(served, image, application, options):
    if application == "generate":
        address = served.get("/api/chairs").json()["address"]
        return served.get(f"{address}/view.png", params=options).content
    known = served.post("/api/images?name=cat.png", content=image.read_bytes()).json()["id"]
    answer = served.post(f"/api/images/{known}/{application}", params=options)
    if application == "project":
        return served.get(answer.json()["image"]).content
    assert answer.status_code == 202, answer.text
    events = served.get(f"/api/jobs/{answer.json()['job']}/events").text
    assert "event: done" in events, events
    facts = json.loads(events.strip().rpartition("data: ")[2])
    file = facts["file"] if application == "restore" else f"/api/results/{facts['id']}/mask.png"
    return served.get(file).content


@pytest.mark.parametrize(("application", "python", "name", "options"), SETS)
def test_the_same_bytes(served, pair, tmp_path, application, python, name, options):
    image = tmp_path / "cat.png"
    photo(100, 70).save(image)
    content = b"" if application == "generate" else image.read_bytes()
    answer = served.post(f"/v1/{application}", content=content, params=options)
    assert answer.status_code == 200, answer.text
    assert answer.content == by_command(pair, image, application, name, options)
    assert answer.content == by_studio(served, image, application, options)
    keywords = {key.replace("-", "_"): value for key, value in options.items()}
    assert answer.content == python(pair, image, **keywords)
