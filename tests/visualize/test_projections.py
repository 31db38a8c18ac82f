"""Projections as files."""

import json
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from unpool.errors import OptionError
from unpool.vision.images import read_image
from unpool.visualize import LoadedModel, Preprocessing, measure_field, project, to_images
from unpool.visualize.projections import ProjectionWriter

SIDE = 32


@pytest.fixture
def loaded(build):
    return LoadedModel(build("overlapping"), "a net", Preprocessing(SIDE, SIDE))


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (36, 44, 3), dtype=np.uint8)


@pytest.mark.parametrize("units", [[], [5, 2]])
def test_records_and_files(loaded, image, tmp_path, units):
    writer = ProjectionWriter(loaded, ["8", "2"], units, rule="guided")
    stem = tmp_path / "out/a.b"
    record = writer.write(image, stem)
    crop = loaded.preprocessing.crop(image)
    assert np.array_equal(read_image(record["input"]), crop)
    assert set((tmp_path / "out").iterdir()) == set(writer.files(stem))
    assert json.loads(Path(f"{stem}.json").read_text()) == record
    for entry in record["projections"]:
        found = project(
            loaded.model, loaded.prepare([crop]), entry["layer"], entry["unit"], rule="guided"
        )
        assert np.array_equal(read_image(entry["file"]), to_images(found.signal)[0])
        assert entry["value"] == pytest.approx(float(found.values[0]))
        assert entry["place"] == found.places[0].tolist()
        field = measure_field(loaded.model, loaded.trial_image(), entry["layer"])
        assert entry["box"] == list(field.box(*entry["place"]))
    shown = [entry["unit"] for entry in record["projections"]]
    assert len(shown) == 2 if not units else shown == [5, 2, 5, 2]


@pytest.mark.parametrize(("layer", "place"), [("7", "max"), ("8", (99, 0))])
def test_what_cannot_be_projected_is_refused_at_once_or_by_the_first_image(
    loaded, image, layer, place
):
    options = {"units": [10**6], "place": place}
    with pytest.raises(OptionError) as early:
        ProjectionWriter(loaded, [layer], **options)
    writer = ProjectionWriter(loaded, [layer], check=False, **options)
    with pytest.raises(OptionError) as late:
        writer.project(image)
    assert str(late.value) == str(early.value)


def test_a_check_changes_no_result(loaded, image):
    made = [
        ProjectionWriter(loaded, ["8"], [5], place=(1, 0), check=check).project(image)[1]
        for check in (True, False)
    ]
    (ending, shown, facts), (same, again, known) = made[0][0], made[1][0]
    assert (ending, facts) == (same, known)
    assert np.array_equal(shown, again)


def test_a_layer_that_is_called_as_the_input(loaded, image, tmp_path):
    net = nn.Sequential()
    net.add_module("input", loaded.model[0])
    named = LoadedModel(net, "named", loaded.preprocessing)
    writer = ProjectionWriter(named, ["input"])
    record = writer.write(image, tmp_path / "out/a")
    shown = {path.name for path in (tmp_path / "out").iterdir()}
    assert shown == {"a.input.png", "a.%69nput.png", "a.json"}
    assert {path.name for path in writer.files(tmp_path / "out/a")} == shown
    assert np.array_equal(read_image(Path(record["input"])), loaded.preprocessing.crop(image))
    assert Path(record["projections"][0]["file"]).name == "a.%69nput.png"
