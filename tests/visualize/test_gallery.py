"""Galleries: what is cut out, what is written, and what is refused."""

import json
import os
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image

from unpool.errors import ImageError, OptionError, ShapeError
from unpool.vision.images import read_image
from unpool.visualize import (
    LoadedModel,
    Preprocessing,
    make_gallery,
    measure_field,
    project,
    to_images,
    top_activations,
)
from unpool.visualize import gallery as module

SIDE = 32


@pytest.fixture
def loaded(build):
    return LoadedModel(build("overlapping"), "a <small> net", Preprocessing(SIDE, SIDE))


@pytest.fixture
def files(tmp_path):
    """Eleven images, of which two are broken; names that a page must escape, one no text."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(11):
        path = tmp_path / (os.fsdecode(b"in/\xff.png") if i == 4 else f"in/{i} & <b>.png")
        path.parent.mkdir(exist_ok=True)
        coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((44, 36)).save(path)
        paths.append(path)
    paths[3].write_bytes(b"")
    paths[10].write_bytes(paths[9].read_bytes()[:50])
    return paths


class Page(HTMLParser):
    """What a page refers to, and what it says."""

    def __init__(self, path):
        super().__init__()
        self.links, self.tags = [], []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]


def test_written_files(loaded, files, tmp_path):
    out, seen = tmp_path / "out", []
    found = make_gallery(
        loaded,
        files,
        out,
        ["8", "2"],
        shown=3,
        count=4,
        batch=4,
        progress=lambda *s: seen.append(s),
    )
    good = [path for i, path in enumerate(files) if i not in (3, 10)]
    assert found.images == good
    assert list(found.failed) == [str(files[3]), str(files[10])]
    images = loaded.prepare([loaded.preprocessing.crop(read_image(path)) for path in good])
    wanted = top_activations(loaded.model, images.split(4), ["8", "2"], 4)
    record = json.loads((out / "top.json").read_text())
    assert record["images"] == [str(path) for path in good]
    assert record["failed"] == found.failed
    for layer, entry in zip(["8", "2"], record["layers"], strict=True):
        assert entry["layer"] == layer
        assert entry["images"] == wanted[layer].images.tolist()
        assert entry["places"] == wanted[layer].places.tolist()
        assert torch.allclose(torch.tensor(entry["values"]), wanted[layer].values, rtol=1e-5)
        field = measure_field(loaded.model, images, layer)
        assert entry["field"] == {k: list(v) for k, v in field._asdict().items()}
    figures = {p.relative_to(out).as_posix() for p in out.rglob("*.png")}
    assert figures == {"8/0000.png", "8/0002.png", "8/0005.png"} | {
        "2/0000.png",
        "2/0002.png",
        "2/0004.png",
    }
    assert [done for done, *_ in seen] == sorted(done for done, *_ in seen)
    assert seen[-1][:2] == (17, 17)
    page = Page(out / "index.html")
    photos = [link for link in page.links if link.endswith(".png")]
    assert {unquote(link) for link in photos} == figures
    assert all(not link.startswith(("http", "/")) for link in page.links)
    assert "b" not in page.tags
    assert "small" in page.tags


def test_patches_are_where_the_field_says(loaded, files, tmp_path, monkeypatch):
    shown = {}
    monkeypatch.setattr(
        module,
        "figure",
        lambda *sides: shown.update({len(shown): sides}) or np.zeros_like(sides[1][0]),
    )
    found = make_gallery(loaded, files, tmp_path / "out", ["5"], units=[6, 1], count=3, batch=2)
    field, top = measure_field(loaded.model, loaded.trial_image(), "5"), found.tops["5"]
    for unit, (projections, patches) in zip([6, 1], shown.values(), strict=True):
        for rank, number in enumerate(top.images[unit].tolist()):
            crop = loaded.preprocessing.crop(read_image(found.images[number]))
            place = top.places[unit, rank]
            signal = project(
                loaded.model, loaded.prepare([crop]), "5", unit, place=place[None]
            ).signal
            x, y, _, _ = field.box(*place.tolist())
            for row in range(field.size[0]):
                for column in range(field.size[1]):
                    inside = 0 <= y + row < SIDE and 0 <= x + column < SIDE
                    wanted = crop[y + row, x + column] if inside else (128,) * 3
                    assert tuple(patches[rank][row, column]) == tuple(wanted)
            whole = to_images(signal)[0]
            outside = whole.copy()
            outside[max(y, 0) : y + field.size[0], max(x, 0) : x + field.size[1]] = 128
            assert (outside == 128).all()
            cut = whole[max(y, 0) : y + field.size[0], max(x, 0) : x + field.size[1]]
            top_, left = max(-y, 0), max(-x, 0)
            seen = projections[rank][top_ : top_ + len(cut), left : left + cut.shape[1]]
            assert np.abs(seen.astype(int) - cut).max() <= 1


def test_layers_without_maps_show_the_whole_image(files, filled_net, tmp_path):
    nn = torch.nn
    net = filled_net(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3600, 5)))
    loaded = LoadedModel(net, "flat", Preprocessing(SIDE, SIDE))
    make_gallery(loaded, files, tmp_path / "out", ["3"], shown=2, count=9)
    record = json.loads((tmp_path / "out/top.json").read_text())
    assert record["layers"][0]["places"] is None
    assert read_image(tmp_path / "out/3/0000.png").shape == (292, 592, 3)


def test_figures_are_two_grids():
    photos = [np.full((10, 5, 3), i, np.uint8) for i in range(9)]
    shown = module.figure(photos, [p + 100 for p in photos])
    assert shown.shape == (3 * 90 + 4, 2 * (3 * 45 + 4) + 8, 3)  # nine times as large
    assert shown[0, 0, 0] == 0
    assert shown[0, 139, 0] == 255
    assert shown[-1, -1, 0] == 108
    assert shown[0, 147, 0] == 100
    large = [np.zeros((200, 100, 3), np.uint8)] * 2
    assert module.figure(large, large).shape == (96, 2 * (2 * 48 + 2) + 8, 3)


def test_errors_come_before_any_work(loaded, files, tmp_path):
    out = tmp_path / "out"
    for layers, options, message in [
        (["nine"], {}, "got layer 'nine', which the model does not have"),
        (["8"], {"units": [3, 8]}, "got unit 8 of layer '8', which has 8; wanted 0 to 7"),
        (["8"], {"rule": "naive"}, "got rule 'naive'"),
    ]:
        with pytest.raises(OptionError, match=message):
            make_gallery(loaded, files, out, layers, **options)
    with pytest.raises(ShapeError, match="cannot be run on"):
        make_gallery(LoadedModel(loaded.model, "", Preprocessing(4, 4)), files, out)
    assert not out.exists()
    with pytest.raises(ImageError, match=r"none of 1 images can be used: .* is empty"):
        make_gallery(loaded, files[3:4], out, ["8"])
    inner = out / "8/0000.png"
    inner.parent.mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(inner)
    before = inner.read_bytes()
    with pytest.raises(OptionError, match=r"8/0000.png, which would overwrite the input"):
        make_gallery(loaded, [inner], out, ["8"])
    assert inner.read_bytes() == before


def test_outdated_figures_are_removed(loaded, files, tmp_path):
    out = tmp_path / "out"
    make_gallery(loaded, files[:1], out, ["8", "2"], units=[0, 1, 3], count=1)
    mine_own = out / "8/0005.png"
    mine_own.write_bytes(files[0].read_bytes())
    photos = [files[0], out / "8/0003.png"]
    make_gallery(loaded, photos, out, ["8"], units=[0, 2], count=1)
    left = {path.relative_to(out).as_posix() for path in out.rglob("*.png")}
    kept = {"8/0003.png", "8/0005.png", "2/0000.png", "2/0001.png", "2/0003.png"}
    assert left == {"8/0000.png", "8/0002.png"} | kept
    (out / "top.json").write_text("{}")
    make_gallery(loaded, photos, out, ["8"], units=[1], count=1)
    assert (out / "8/0000.png").exists()
