import json

import pytest

from unpool.data.layouts.contents import files_of_kind, kind_of


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ({"shapes": [], "version": "5"}, "labelme"),
        ({"version": "5", "imageData": "x" * 10_000, "shapes": []}, "labelme"),
        ({"info": {}, "licenses": [{}], "images": []}, "coco"),
        ({"categories": []}, "coco"),
        ([{"id": 1, "data": {}, "annotations": []}], "label-studio"),
        ([{"id": 1, "data": {}, "predictions": []}], "label-studio"),
        ([{"id": 1, "image": "a.jpg"}], "label-studio"),
        ([], None),
        ([1], None),
        ([{"a": 1}], None),
        ({"shapes": 7}, None),
        ({"images": "x"}, None),
        ({}, None),
        (7, None),
    ],
)
def test_what_a_file_is(tmp_path, content, kind):
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert kind_of(tmp_path / "a.json") == kind


def test_broken_files_are_nothing(tmp_path):
    (tmp_path / "a.json").write_text('{"info": [')
    assert kind_of(tmp_path / "a.json") is None
    (tmp_path / "a.json").write_bytes(b"\xff")
    assert kind_of(tmp_path / "a.json") is None


def test_files_at_the_top_come_first(tmp_path):
    for name in ("b/a.json", "z.json", "b/c/deep.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"images": []}')
    assert files_of_kind(tmp_path, "coco") == [tmp_path / "z.json", tmp_path / "b/a.json"]
    assert files_of_kind(tmp_path, "labelme") == []
