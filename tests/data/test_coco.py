import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from unpool.data import check_data, objects, open_data, read_instances, read_sample
from unpool.data.coco import (
    Outlines,
    decode_rle,
    fill_polygon,
    find_annotations,
    rasterize,
    read_annotations,
)
from unpool.errors import DataError
from unpool.vision.images import write_image

coco = pytest.importorskip("pycocotools.mask")

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9))
POINT = st.tuples(st.floats(-3, 12), st.floats(-3, 12))


def rectangle(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def drawing(*found: dict[str, Any], size: tuple[int, int] = (6, 8)) -> Outlines:
    return Outlines(Path("file.json"), "a.jpg", size, list(found), {1: 1, 7: 2})


def annotation(number: int, outline: object, category: int = 1, **more: object) -> dict[str, Any]:
    if isinstance(outline, list):
        outline = [np.array(polygon, np.float32) for polygon in outline]
    return {"id": number, "segmentation": outline, "category_id": category, **more}


def content(name: str = "a.jpg", **more: object) -> dict[str, Any]:
    """A file of one image of 6 x 8 with a large object in front of a small one, and a crowd."""
    found = [
        {"id": 10, "image_id": 4, "category_id": 7, "segmentation": rectangle(1, 1, 3, 3)},
        {"id": 11, "image_id": 4, "category_id": 2, "segmentation": rectangle(0, 0, 6, 4)},
        {
            "id": 12,
            "image_id": 4,
            "category_id": 7,
            "iscrowd": 1,
            "segmentation": {"counts": [40, 8], "size": [6, 8]},
        },
    ]
    return {
        "info": {"year": 2017},
        "images": [{"id": 4, "file_name": name, "height": 6, "width": 8, "license": 1}],
        "annotations": found,
        "categories": [{"id": 7, "name": "cup"}, {"id": 2, "name": "table", "supercategory": "x"}],
    } | more


def write(root: Path, split: str, values: object) -> Path:
    (root / "annotations").mkdir(exist_ok=True)
    path = root / f"annotations/instances_{split}.json"
    path.write_text(json.dumps(values))
    return path


def photo(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)


@pytest.fixture
def root(tmp_path) -> Path:
    for i, split in enumerate(["train2017", "val2017"]):
        write(tmp_path, split, content(f"{split[0]}.jpg"))
        write_image(tmp_path / split / f"{split[0]}.jpg", photo(i))
    return tmp_path


# run-length codes


@given(MASKS)
def test_codes_decode_to_what_was_encoded(mask):
    height, width = mask.shape
    code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    np.testing.assert_array_equal(decode_rle(code, height, width), mask)
    flat = [0, *mask.T.ravel().astype(int).tolist()]
    ends = [i for i in range(1, len(flat)) if flat[i] != flat[i - 1]]
    runs = np.diff([1, *ends, len(flat)]).tolist()
    np.testing.assert_array_equal(decode_rle(runs, height, width), mask)


def test_long_runs_and_differences_of_both_signs():
    mask = np.zeros((1000, 700), np.uint8)
    mask[3:900, 5] = mask[:, 100:400] = mask[990:, 500:505] = 1
    code = coco.encode(np.asfortranarray(mask))["counts"].decode()
    np.testing.assert_array_equal(decode_rle(code, 1000, 700), mask)


@pytest.mark.parametrize(
    "counts", [[], [5], [3, 4], [7, -1], [2, 2.0, 2], ["6"], "", "1", "o", "é"]
)
def test_codes_that_do_not_fill_the_image(counts):
    with pytest.raises(DataError, match="code that does not fill 3 x 2 pixels; export it again"):
        decode_rle(counts, 2, 3)


# polygons


def inside(x: float, y: float, corners: list[tuple[float, float]]) -> bool:
    """Whether a ray to the left crosses the outline an odd number of times."""
    odd = False
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if (y0 <= y) != (y1 <= y) and x0 + (y - y0) / (y1 - y0) * (x1 - x0) <= x:
            odd = not odd
    return odd


@given(st.lists(POINT, min_size=3, max_size=7))
def test_a_polygon_covers_the_pixels_whose_centers_it_holds(corners):
    filled = fill_polygon(np.array(corners), 8, 9)
    expected = [[inside(j + 0.5, i + 0.5, corners) for j in range(9)] for i in range(8)]
    np.testing.assert_array_equal(filled, expected)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # theirs
@pytest.mark.parametrize("seed", range(5))
def test_polygons_are_those_of_pycocotools_but_for_some_pixels_of_the_border(seed):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 20))
    radius = rng.uniform(10, 38, 20)
    corners = 40 + np.stack([np.cos(angles) * radius, np.sin(angles) * radius], 1)
    ours = fill_polygon(corners, 80, 80)
    theirs = coco.decode(coco.frPyObjects([corners.ravel().tolist()], 80, 80))[:, :, 0] > 0
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.98


def test_neighbors_share_no_pixel():
    left = fill_polygon(np.array([[0, 0], [2.5, 0], [2.5, 4], [0, 4]]), 4, 6)
    right = fill_polygon(np.array([[2.5, 0], [6, 0], [6, 4], [2.5, 4]]), 4, 6)
    assert not (left & right).any()
    assert (left | right).all()


# drawing


def test_small_objects_cover_large_ones_and_all_cover_crowds():
    code = {"counts": [24, 24], "size": [6, 8]}
    found = rasterize(
        drawing(
            annotation(10, rectangle(1, 1, 5, 3), 7),
            annotation(11, rectangle(0, 0, 6, 4), 1),
            annotation(12, code, 1, iscrowd=1),
        )
    )
    labels = np.zeros((6, 8), int)
    labels[:, 4:] = 255
    labels[:4, :6] = 1
    labels[1:3, 1:5] = 2
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(
        found.instances, np.select([labels == 1, labels == 2], [2, 1], labels)
    )
    assert (found.labels.dtype, found.instances.dtype) == (np.uint8, np.int32)


def test_parts_of_one_object_add_up_and_reach_beyond_the_image():
    found = rasterize(drawing(annotation(1, rectangle(-5, -5, 2, 2) + rectangle(1, 1, 99, 99))))
    expected = np.ones((6, 8), int)
    expected[:1, 2:] = expected[2:, :1] = 0
    np.testing.assert_array_equal(found.labels, expected)


def test_objects_that_cover_no_pixel():
    flat, outside = rectangle(1, 1, 4, 1), rectangle(20, 20, 30, 30)
    tiny, empty = rectangle(1.1, 1.1, 1.4, 1.4), {"counts": [48], "size": [6, 8]}
    outlines = [flat, outside, tiny, empty, rectangle(0, 0, 1, 1)]
    found = rasterize(drawing(*(annotation(i, outline) for i, outline in enumerate(outlines))))
    assert found.empty == [0, 1, 2, 3]
    assert found.labels.sum() == 1
    assert found.instances[0, 0] == 5


def test_more_than_254_objects():
    found = [annotation(i, rectangle(i % 20, i // 20, i % 20 + 1, i // 20 + 1)) for i in range(300)]
    numbers = rasterize(drawing(*found, size=(15, 20))).instances.ravel()
    assert numbers.tolist() == [*range(1, 255), *range(256, 302)]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"segmentation": rectangle(0, 0, 1, 1)}, "has no category; give it a category_id"),
        (annotation(9, rectangle(0, 0, 1, 1), 3), "has the unknown category 3; give"),
        (annotation(9, rectangle(0, 0, 1, 1), [1]), r"has the unknown category \[1\]; give"),
        ({"category_id": 1}, "has no usable outline; wanted polygons"),
        (annotation(9, []), "has no usable outline"),
        (annotation(9, [[1, 1, 4, 4]]), "has no usable outline"),
        (annotation(9, [[1, 1, 4, 4, 2, 2, 0]]), "has no usable outline"),
        (annotation(9, [[1, 1, 4, 4, 2, np.nan]]), "has no usable outline"),
        (
            annotation(9, {"counts": [48], "size": [8, 6]}),
            r"has a code for \(H, W\) \[8, 6\], want",
        ),
        (annotation(9, {"counts": [47], "size": [6, 8]}), "has a run-length code that does not"),
        (annotation(9, {"counts": 48, "size": [6, 8]}), "has no usable outline"),
    ],
)
def test_annotations_that_cannot_be_rasterized(found, message):
    with pytest.raises(DataError, match=rf"file.json \(a.jpg\): annotation (9|1) {message}"):
        rasterize(drawing(found))


# files


def test_splits_are_named_without_their_year_unless_that_is_all_that_differs(tmp_path):
    for name in ("train2017", "val2014", "val2017", "default", "2020", "test-dev"):
        write(tmp_path, name, {})
    assert sorted(find_annotations(tmp_path)) == [
        *("2020", "default", "test-dev", "train", "val2014", "val2017")
    ]


def test_classes_are_the_categories_in_the_order_of_their_ids(root):
    data = open_data(root, "train")
    assert data.classes == ["background", "table", "cup"]
    (sample,) = data.samples
    assert (sample.name, sample.image) == ("train2017/t", root / "train2017/t.jpg")
    image, labels = read_sample(sample, 3)
    assert image.shape == (6, 8, 3)
    expected = np.zeros((6, 8), int)
    expected[4:, 6] = expected[:, 7] = 255
    expected[:, 6] = np.where(np.arange(6) < 4, 0, 255)
    expected[:4, :6] = 1
    expected[1:3, 1:3] = 2
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(
        read_instances(sample, 3), np.select([labels == 1, labels == 2], [2, 1], expected)
    )
    assert objects(sample, 3) == [(2, (1, 1, 3, 3), 1, 4), (1, (0, 0, 6, 4), 2, 20)]


@pytest.mark.parametrize(
    ("home", "name"),
    [
        ("train2017", "train2017/t"),
        ("train", "train/t"),
        ("images", "t"),
        ("images/train2017", "train2017/t"),
        ("images/train", "train/t"),
        ("photos", "photos/t"),
    ],
)
def test_folders_of_images(tmp_path, home, name):
    image = "photos/t.jpg" if home == "photos" else "t.jpg"
    write(tmp_path, "train2017", content(image))
    write_image(tmp_path / home / "t.jpg", photo(0))
    for split in ("train", "train2017", "all"):
        (sample,) = open_data(tmp_path, split).samples
        assert sample.name == name
        assert read_sample(sample, 3)[0].shape == (6, 8, 3)


def test_only_the_file_of_the_split_is_read_and_once(root, monkeypatch):
    seen = []

    def read(path: Path) -> object:
        seen.append(path.name)
        return read_annotations(path)

    monkeypatch.setattr("unpool.data.layouts.coco.read_annotations", read)
    open_data(root, "train")
    assert seen == ["instances_train2017.json"]
    assert [s.name for s in open_data(root, "all").samples] == ["train2017/t", "val2017/v"]
    assert len(seen) == 3


def test_unknown_splits(root):
    with pytest.raises(DataError, match=r"got split 'test' of .*; there are train, val, all: pass"):
        open_data(root, "test")


def test_a_missing_image(root):
    (root / "val2017/v.jpg").unlink()
    with pytest.raises(DataError, match=r"found no file for 'val2017/v' in .*; wanted that name"):
        open_data(root, "val")
    finding = check_data(root).findings[0]
    assert finding[:3] == ("error", "missing-image", "val2017/v")


def test_an_image_of_another_size(root):
    write_image(root / "val2017/v.jpg", photo(0)[1:])
    (sample,) = open_data(root, "val").samples
    message = r"v.jpg is 8 x 5 \(upright\) but its mask .*val2017.json \(v.jpg\) is 8 x 6"
    with pytest.raises(DataError, match=message):
        read_sample(sample, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "without 'categories'; wanted a list 'categories' of objects with id, name: export"),
        (content(images={}), "without 'images'; wanted a list 'images' of objects with id, file_"),
        (content(images=[{"id": 1}]), r"whose images\[0\] is incomplete; wanted a list"),
        (content(images=[7]), r"whose images\[0\] is incomplete"),
        (content(images=content()["images"] * 2), "with a.jpg or its id twice; list each"),
        (
            content(images=[{"id": 4, "file_name": "a.jpg", "height": 0, "width": 8}]),
            "with a.jpg of 8 x 0; write its size",
        ),
        (
            content(images=[{"id": 4, "file_name": "a.jpg", "height": 10**6, "width": 10**6}]),
            "with a.jpg of 1000000 x 1000000",
        ),
        (content(annotations=None), "without 'annotations'; wanted"),
        (
            content(annotations=[{"id": 1}]),
            r"whose annotations\[0\] is incomplete; wanted .*image_id",
        ),
        (content(categories=[]), "with 0 categories; wanted 1 to 254"),
        (content(categories=[{"id": i, "name": f"{i}"} for i in range(255)]), "with 255 categ"),
        (content(categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]), "'a' twice; give"),
        (content(categories=[{"id": 0, "name": "background"}]), "'background' twice; give"),
        (content(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]), "of one id; give"),
        (content(categories=[{"id": 1, "name": "a"}, {"id": "2", "name": "b"}]), "numbers and t"),
    ],
)
def test_files_of_another_form(root, values, message):
    write(root, "val2017", values)
    with pytest.raises(DataError, match=f"instances_val2017.json.*{message}"):
        open_data(root, "val")


@pytest.mark.parametrize("text", [b"", b'{"images": [', b"\xff\xfe\xfa", b"[" * 100_000])
def test_files_that_are_not_json(root, text):
    (root / "annotations/instances_val2017.json").write_bytes(text)
    with pytest.raises(DataError, match=r"val2017.json, which is not JSON \(.*\); export"):
        open_data(root, "val")


def test_files_of_different_categories(root):
    write(root, "val2017", content("v.jpg", categories=[{"id": 2, "name": "cup"}]))
    assert open_data(root, "val").classes == ["background", "cup"]
    with pytest.raises(DataError, match=r"val2017.json with other categories than .*train2017"):
        check_data(root)


# a check


def test_a_check_counts_objects_and_reports_bad_annotations(root):
    values = content("v.jpg")
    values["annotations"][0]["category_id"] = 99
    write(root, "val2017", values)
    values = content("t.jpg")
    values["annotations"] += [
        {"id": 13, "image_id": 4, "category_id": 7, "segmentation": rectangle(1, 1, 1, 3)},
        {"id": 14, "image_id": 5, "category_id": 7, "segmentation": rectangle(1, 1, 1, 3)},
    ]
    write(root, "train2017", values)
    report = check_data(root)
    findings = [f for f in report.findings if f.kind != "rare-class"]
    assert [f[:3] for f in findings] == [
        ("error", "annotation", "annotations/instances_val2017.json (v.jpg)"),
        ("warning", "empty-object", "annotations/instances_train2017.json (t.jpg)"),
        ("warning", "orphan-annotations", "annotations/instances_train2017.json"),
    ]
    assert [f.message for f in findings] == [
        "annotation 10 has the unknown category 99; give it a category_id of the file's categories",
        "has the annotations 13, which cover no pixel; redraw or remove them",
        "has 1 annotations of unknown images, which are ignored; check the ids",
    ]
    assert [count.objects["train"] for count in report.classes] == [0, 1, 1]
