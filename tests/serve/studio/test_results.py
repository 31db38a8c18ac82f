"""The API of the page Results, on the folders of a run over images and of a training run."""

import io
import json
import math

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.cli.files import photo
from unpool.cli import main
from unpool.files import write_json
from unpool.serve.app import make_app
from unpool.serve.applications import Models
from unpool.serve.studio.studio import Settings


@pytest.fixture(scope="module")
def output(tmp_path_factory, weights):
    """Masks and overlays of three images; the fourth is broken."""
    folder = tmp_path_factory.mktemp("many")
    for seed in range(3):
        path = folder / "in" / ("b" * (seed == 2)) / f"photo{seed}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(60, 400, seed).save(path)
    (folder / "in/broken.jpg").write_bytes(b"no image")
    args = ["--weights", weights, "--precision", "fp32", "-o", str(folder / "out"), "--quiet"]
    assert main(["segment", str(folder / "in"), *args]) == 3
    return folder / "out"


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """What a training run leaves."""
    folder = tmp_path_factory.mktemp("run") / "mine"
    write_json(folder / "config.json", {"recipe": "finetune", "steps": 900})
    summary = {"miou": 0.5, "iou": {"cat": 0.7, "dog": None}, "class_images": {"cat": 4, "dog": 0}}
    write_json(folder / "eval/summary.json", {**summary, "notes": ["few cats"], "n": [1]})
    lines = [{"n": n, "phase": "all", "loss": 1 / n, "lr": 0.1} for n in range(1, 901)]
    lines += [{"n": n, "phase": "all", "miou": n / 1000} for n in (450, 900)]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (folder / "metrics.jsonl").write_text(f'{text}{{"n": 901, "loss": NaN}}\n{{"n": 902, "lo')
    (folder / "plots").mkdir()
    Image.new("RGB", (640, 320), "red").save(folder / "plots/predictions.png")
    Image.new("RGB", (640, 320), "red").save(folder / "secret.png")
    (folder / "plots/outside.png").symlink_to(__file__)
    return folder


@pytest.fixture
def api(weights):
    """Make a client of the routes of the page, for a folder."""
    clients = []

    def api(folder):
        app = make_app(Models(weights), load=lambda: None, studio=Settings(results=folder))
        clients.append(TestClient(app, "http://127.0.0.1", raise_server_exceptions=False))
        return clients[-1].__enter__()

    yield api
    for client in clients:
        client.__exit__()


def labels_of(output, name):
    mask = np.asarray(Image.open(output / f"{name}.png"))
    return {k: float((mask == k).mean()) for k in np.unique(mask)}


def test_images_and_their_classes(api, output):
    calls = api(output)
    about = calls.get("/api/folder").json()
    assert (about["kind"], about["name"]) == ("images", "out")
    facts = about["facts"]
    assert (facts["command"], facts["images"], facts["done"], facts["failed"]) == (
        "segment", 4, 3, 1,
    )  # fmt: skip
    found = calls.get("/api/folder/items").json()
    assert found["total"] == 3
    names = {item["name"] for item in found["items"]}
    assert names == {"photo0", "photo1", "b/photo2"}
    for item in found["items"]:
        assert item["files"] == [f"{item['name']}.overlay.jpg", f"{item['name']}.png"]
        fractions = sorted(labels_of(output, item["name"]).values())
        assert sorted(item["labels"].values()) == pytest.approx(fractions, abs=1e-3)
    rows = about["classes"]["rows"]
    for name, count, mean in rows:
        fractions = [i["labels"][name] for i in found["items"] if name in i["labels"]]
        assert (count, mean) == (len(fractions), pytest.approx(np.mean(fractions)))
    assert [row[1] for row in rows] == sorted((row[1] for row in rows), reverse=True)


def test_filters(api, output):
    calls = api(output)
    found = calls.get("/api/folder/items").json()["items"]
    name = max(found[0]["labels"], key=found[0]["labels"].get)
    middle = sorted(item["labels"].get(name, 0) for item in found)[1]
    query = {"class": name, "least": middle}
    some = calls.get("/api/folder/items", params=query).json()
    wanted = {item["name"] for item in found if item["labels"].get(name, 0) >= middle}
    assert {item["name"] for item in some["items"]} == wanted
    assert some["total"] == len(wanted) < 4
    failed = calls.get("/api/folder/items?failed=").json()
    assert [item["name"] for item in failed["items"]] == ["broken"]
    assert "is not an image of a known format" in failed["items"][0]["error"]
    assert calls.get("/api/folder/items?first=2").json()["items"] == found[2:]
    assert calls.get("/api/folder/items?class=unicorn").json() == {"total": 0, "items": []}


def test_the_images_are_those_on_the_disk(api, output):
    calls = api(output)
    query = {"name": "b/photo2", "file": "b/photo2.png"}
    answer = calls.get("/api/folder/image", params=query)
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == (output / "b/photo2.png").read_bytes()
    query = {"name": "b/photo2", "file": "b/photo2.overlay.jpg", "small": ""}
    small = Image.open(io.BytesIO(calls.get("/api/folder/image", params=query).content))
    assert (small.format, small.size) == ("JPEG", (48, 320))


def test_a_training_run(api, training):
    about = api(training).get("/api/folder").json()
    assert (about["kind"], about["name"], about["notes"]) == ("training", "mine", ["few cats"])
    assert about["facts"] == {"recipe": "finetune", "steps": 900, "miou": 0.5}
    assert about["classes"] == {
        "columns": ["class", "iou", "class images"],
        "rows": [["cat", 0.7, 4], ["dog", None, 0]],
    }
    curves = about["curves"]
    assert curves["miou"] == [[450, 0.45], [900, 0.9]]
    assert len(curves["loss"]) == 300  # of 900, each is the mean of three
    assert curves["loss"][1] == pytest.approx([6, (1 / 4 + 1 / 5 + 1 / 6) / 3])
    assert all(math.isfinite(value) for points in curves.values() for _, value in points)
    assert set(curves) == {"loss", "lr", "miou"}


@pytest.mark.parametrize(
    "query",
    [
        "file=secret.png", "file=plots/outside.png", "file=../mine/plots/predictions.png",
        "file=plots/missing.png", "file=config.json", "file=plots/../plots/predictions.png",
    ],
)  # fmt: skip
def test_only_images_that_are_listed_are_read(api, training, query):
    calls = api(training)
    assert calls.get("/api/folder/image?file=plots/predictions.png").status_code == 200
    assert calls.get(f"/api/folder/image?{query}").status_code == 404


def test_a_ledger_that_names_foreign_files(api, output, tmp_path):
    """A folder of results may come from somebody else."""
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    folder = tmp_path / "out"
    (folder / ".unpool/ledger").mkdir(parents=True)
    (folder / ".unpool/manifest").mkdir()
    head = {"command": "segment", "procedure": "p", "shard": None, "time": 1.0}
    (folder / ".unpool/manifest/p.jsonl").write_text(f'{json.dumps(head)}\n{{"name": "a"}}\n')
    files = ["../secret.png", str(secret), 7]
    line = {"name": "a", "content": "c", "procedure": "p", "files": files,
            "record": {"labels": {"cat": "much", "dog": 0.5}}}  # fmt: skip
    (folder / ".unpool/ledger/x.jsonl").write_text(json.dumps(line) + "\n[]\n{}\n")
    calls = api(folder)
    assert calls.get("/api/folder/items").json()["items"][0]["labels"] == {"dog": 0.5}
    for file in files:
        assert calls.get("/api/folder/image", params={"name": "a", "file": file}).status_code == 404


@pytest.mark.parametrize(
    ("folder", "message"), [(None, "start the studio with --results"), ("", "neither a training")]
)
def test_without_results(api, tmp_path, folder, message):
    answer = api(None if folder is None else tmp_path).get("/api/folder")
    assert answer.status_code == 404
    assert message in answer.json()["error"]


def test_a_ledger_that_grows_is_read_again(api, output):
    calls = api(output)
    assert calls.get("/api/folder/items").json()["total"] == 3
    (ledger,) = (output / ".unpool/ledger").glob("*.jsonl")
    before = ledger.read_text()
    line = json.loads(before.splitlines()[-1])
    with ledger.open("a") as file:
        file.write(json.dumps({**line, "name": "new"}) + "\n")
    try:
        assert calls.get("/api/folder/items").json()["total"] == 4
    finally:
        ledger.write_text(before)
