"""Parquet: its rows hold what the COCO file of the same images does."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.formats.scenes import CLASSES, SCENES
from unpool.errors import OptionError
from unpool.formats.coco import categories, to_coco
from unpool.formats.objects import find_objects
from unpool.formats.parquet import require_pyarrow, to_row, write_parquet

needs_pyarrow = pytest.mark.skipif(not find_spec("pyarrow"), reason="needs pyarrow")


@needs_pyarrow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
def test_rows_are_read_back(tmp_path):
    import pyarrow.parquet as pq

    objects = {name: find_objects(labels, CLASSES) for name, labels in SCENES.items()}
    known = {"source": "in/x.jpg", "content": "abc"}
    rows = [{"name": k, **known, **to_row(v, f"{k}.jpg")} for k, v in objects.items()]
    write_parquet(tmp_path / "x.parquet", iter(rows), CLASSES)
    table = pq.read_table(tmp_path / "x.parquet")
    assert json.loads(table.schema.metadata[b"categories"]) == categories(CLASSES)
    for row, (name, labels) in zip(table.to_pylist(), SCENES.items(), strict=True):
        assert row["name"] == name
        assert (row["height"], row["width"]) == labels.shape
        drawn = np.zeros(labels.shape, int)
        for entry in row["annotations"]:
            drawn[coco_mask.decode(entry["segmentation"]).astype(bool)] = entry["category_id"]
        np.testing.assert_array_equal(drawn, np.where(labels == 255, 0, labels))
        expected = to_coco(objects[name], "")["annotations"]
        assert [e["area"] for e in row["annotations"]] == [e["area"] for e in expected]


@needs_pyarrow
def test_many_rows_and_none(tmp_path):
    import pyarrow.parquet as pq

    row = {"name": "a", "source": "a", "content": "", "file_name": "a", "width": 1, "height": 2}
    for count in (0, 2500):
        rows = ({**row, "annotations": [], "name": str(i)} for i in range(count))
        write_parquet(tmp_path / "x.parquet", rows, CLASSES)
        file = pq.ParquetFile(tmp_path / "x.parquet")
        assert file.read().column("name").to_pylist() == [str(i) for i in range(count)]
        assert file.num_row_groups == -(-count // 1000)


def test_without_pyarrow(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(OptionError, match=r"needs pyarrow: pip install 'unpool\[scale\]'"):
        require_pyarrow()
