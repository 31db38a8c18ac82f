import itertools
from collections import deque
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import ExifTags, Image

from unpool.data import VOC_CLASSES, Sample, objects, open_data, read_instances, read_sample
from unpool.data.datasets import components, instance_objects
from unpool.errors import DataError, ImageError
from unpool.vision.images import write_image, write_mask

IMAGE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
LABELS = np.arange(48, dtype=np.uint8).reshape(6, 8) // 16  # 0, 1 and 2
BLOCKS = np.kron([[0, 5, 5], [7, 0, 255]], np.ones((4, 4), int)).astype(np.uint8)  # 8 x 12


def plain(root: Path, *names: str, labels: np.ndarray = LABELS) -> Path:
    for name in names:
        write_image(root / f"images/{name}.jpg", IMAGE)
        write_mask(root / f"masks/{name}.png", labels)
    return root


def voc(root: Path, **splits: str) -> Path:
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    for split, names in splits.items():
        (root / f"ImageSets/Segmentation/{split}.txt").write_text(names)
        for name in names.split():
            write_image(root / f"JPEGImages/{name}.jpg", IMAGE)
            write_mask(root / f"SegmentationClass/{name}.png", LABELS)
    return root


def names(root: Path, split: str) -> list[str]:
    return [sample.name for sample in open_data(root, split).samples]


# layouts and splits


def test_a_voc_folder_keeps_the_order_of_its_list_and_has_vocs_classes(tmp_path):
    root = voc(tmp_path, train="b\na\n", val="c\n\n")
    data = open_data(root, "train")
    assert data.samples == [
        Sample(name, root / f"JPEGImages/{name}.jpg", root / f"SegmentationClass/{name}.png")
        for name in "ba"
    ]
    assert (data.root, data.split, data.classes) == (root, "train", VOC_CLASSES)
    assert names(root, "val") == ["c"]
    assert names(root, "all") == ["a", "b", "c"]


def test_a_plain_folder_with_lists(tmp_path):
    plain(tmp_path, "a", "b", "c")
    (tmp_path / "train.txt").write_text("c\na\n")
    assert names(tmp_path, "train") == ["c", "a"]
    with pytest.raises(DataError, match=r"got split 'val' of .*; there are train, all: pass one"):
        open_data(tmp_path, "val")


def test_a_plain_folder_with_folders(tmp_path):
    plain(tmp_path, "train/b", "train/deep/a", "test/a")
    assert names(tmp_path, "train") == ["train/b", "train/deep/a"]
    assert names(tmp_path, "test") == ["test/a"]
    with pytest.raises(DataError, match="there are test, train, all: pass"):
        open_data(tmp_path, "val")


def test_a_plain_folder_without_either_sets_every_fifth_image_aside(tmp_path):
    plain(tmp_path, *(f"{i:02d}" for i in range(11)))
    assert names(tmp_path, "val") == ["04", "09"]
    assert names(tmp_path, "train") == [f"{i:02d}" for i in range(11) if i not in (4, 9)]


# names


def test_suffixes_in_upper_case_and_hidden_files(tmp_path):
    plain(tmp_path, "a")
    (tmp_path / "images/a.jpg").rename(tmp_path / "images/a.Jpg")
    (tmp_path / "masks/a.png").rename(tmp_path / "masks/a.PNG")
    (tmp_path / "images/._a.jpg").touch()
    (tmp_path / "images/.cache").mkdir()
    (tmp_path / "images/.cache/a.jpg").touch()
    (sample,) = open_data(tmp_path, "train").samples
    assert sample == Sample("a", tmp_path / "images/a.Jpg", tmp_path / "masks/a.PNG")


def test_two_images_of_one_name_are_refused(tmp_path):
    plain(tmp_path, "a")
    write_image(tmp_path / "images/a.png", IMAGE)
    with pytest.raises(DataError, match=r"found 2 files for 'a' in .*\(a.jpg, a.png\); keep one"):
        open_data(tmp_path, "all")


# classes


def test_classes_are_named_by_their_lines(tmp_path):
    plain(tmp_path, "a")
    (tmp_path / "classes.txt").write_text("\ufeffsky\nsea \nsand\n\n", "utf-8")
    assert open_data(tmp_path, "all").classes == ["sky", "sea", "sand"]


def test_unnamed_classes_are_numbered_alike_in_every_split(tmp_path):
    plain(tmp_path, "train/a")
    plain(tmp_path, "val/a", labels=LABELS // 2)
    write_mask(tmp_path / "masks/val/void.png", np.full((2, 2), 255))
    for split in ("train", "val"):
        assert open_data(tmp_path, split).classes == ["background", "class 1", "class 2"]


def test_there_are_two_classes_at_least(tmp_path):
    plain(tmp_path, "a", labels=LABELS * 0)
    assert open_data(tmp_path, "all").classes == ["background", "class 1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sky\n", "got 1 names in .*classes.txt; wanted 2 to 255, one per line"),
        ("x\n" * 256, "got 256 names"),
        ("sky\n\nsea\n", "got an empty line 2 in .*; wanted a name"),
        ("sky\nsea\nsky\n", "got 'sky' twice"),
        (b"sky\nd\xe9j\xe0\n", "not text in UTF-8 .*; save it as"),
    ],
)
def test_classes_that_cannot_be_used(tmp_path, text, message):
    plain(tmp_path, "a")
    (tmp_path / "classes.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        open_data(tmp_path, "all")


# what is missing


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["photos"], r"whose layout is unknown; the layouts are VOC \(JPEGImages/ Segmentation"),
        (["images"], "the nearest is plain, from which masks/ is missing: add it. The layouts are"),
        (["JPEGImages"], "the nearest is VOC, from which SegmentationClass/ is missing: add it"),
        (["photos/images", "photos/masks"], r"unknown; did you mean .*photos \(plain\)\? The"),
        (["images", "masks"], "images without images; wanted files ending in .jpg"),
    ],
)
def test_folders_that_are_no_data_set(tmp_path, folders, message):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(DataError, match=message):
        open_data(tmp_path, "train")


def test_a_root_that_is_no_folder(tmp_path):
    with pytest.raises(DataError, match=r"got .*none, which is not a folder; pass the root"):
        open_data(tmp_path / "none", "train")


def test_images_and_masks_that_are_missing(tmp_path):
    plain(tmp_path, "a", "b")
    (tmp_path / "train.txt").write_text("a\nc\n")
    with pytest.raises(DataError, match=r"found no file for 'c' in .*images; wanted that name"):
        open_data(tmp_path, "train")
    (tmp_path / "masks/b.png").unlink()
    with pytest.raises(DataError, match=r"found no file for 'b' in .*masks; wanted .* \.png \.bmp"):
        open_data(tmp_path, "all")


def test_what_is_missing_can_be_recorded(tmp_path):
    plain(tmp_path, *"abcd")
    (tmp_path / "train.txt").write_text("a\nb\nc\nd\ne\n")
    (tmp_path / "masks/b.png").unlink()
    write_image(tmp_path / "images/c.png", IMAGE)
    missing = {}
    data = open_data(tmp_path, "train", missing)
    assert [sample.name for sample in data.samples] == ["a", "d"]
    assert list(missing) == ["b", "c", "e"]
    assert "found no file for 'b' in" in missing["b"]
    assert "found 2 files for 'c' in" in missing["c"]
    assert data.classes == ["background", "class 1", "class 2"]
    for name in "ad":
        (tmp_path / f"images/{name}.jpg").unlink()
    missing = {}
    assert open_data(tmp_path, "train", missing).samples == []
    assert list(missing) == [*"abcde"]


def test_masks_that_cannot_be_read_do_not_number_the_classes(tmp_path):
    plain(tmp_path, *"abc")
    Image.fromarray(IMAGE).save(tmp_path / "masks/a.png")
    (tmp_path / "masks/b.png").write_text("no image")
    missing = {}
    data = open_data(tmp_path, "all", missing)
    assert data.classes == ["background", "class 1", "class 2"]
    assert (len(data.samples), missing) == (3, {})
    with pytest.raises(ImageError, match=r"a\.png"):
        open_data(tmp_path, "all")
    (tmp_path / "masks/c.png").unlink()
    assert open_data(tmp_path, "all", missing).classes == ["background", "class 1"]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("list", r"write their ids to .*val\.txt"),
        ("folder", "put them into .*images/val"),
        (
            "rule",
            "without lists and folders val is every fifth image, and there is 1 in all; add "
            r"images until there are 5, write .* train.txt and val.txt in .*split=all",
        ),
    ],
)
def test_splits_without_images(tmp_path, form, message):
    plain(tmp_path, "a")
    if form == "list":
        (tmp_path / "val.txt").write_text("\n \n")
    elif form == "folder":
        (tmp_path / "images/val").mkdir()
    with pytest.raises(DataError, match=f"split 'val' of .*, which has no images.*{message}"):
        open_data(tmp_path, "val")


# samples


def test_a_palette_mask_is_read_as_indices(tmp_path):
    (sample,) = open_data(plain(tmp_path, "a"), "all").samples
    with Image.open(sample.mask) as im:
        assert im.mode == "P"
    image, labels = read_sample(sample, 3)
    assert image.shape == (6, 8, 3)
    assert image.dtype == labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, LABELS)


def test_void_is_read_and_unknown_ids_are_refused(tmp_path):
    plain(tmp_path, "a", labels=np.where(LABELS == 2, 255, LABELS))
    (sample,) = open_data(tmp_path, "all").samples
    assert set(np.unique(read_sample(sample, 2)[1])) == {0, 1, 255}
    write_mask(sample.mask, LABELS + 19)
    message = r"a.png has the ids 20, 21; wanted 0 to 19, or 255 .* classes.txt at the root"
    with pytest.raises(DataError, match=message):
        read_sample(sample, 20)


def test_an_image_rotated_by_exif_matches_an_upright_mask(tmp_path):
    (sample,) = open_data(plain(tmp_path, "a"), "all").samples
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(IMAGE).save(sample.image, exif=exif)
    message = r"a.jpg is 6 x 8 \(upright\) but its mask .*a.png is 8 x 6; .*undo .* EXIF rotation"
    with pytest.raises(DataError, match=message):
        read_sample(sample, 3)
    write_mask(sample.mask, LABELS.T)
    image, labels = read_sample(sample, 3)
    assert image.shape[:2] == labels.shape == (8, 6)


def test_a_color_coded_mask_is_refused(tmp_path):
    (sample,) = open_data(plain(tmp_path, "a"), "all").samples
    Image.fromarray(IMAGE).save(sample.mask)
    with pytest.raises(ImageError, match=r"a\.png: has mode RGB, as a color-coded mask does"):
        read_sample(sample, 3)


def sample(root: Path, labels: np.ndarray, instances: np.ndarray | None = None) -> Sample:
    write_mask(root / "mask.png", labels)
    if instances is not None:
        write_mask(root / "objects.png", instances)
    path = root / "objects.png" if instances is not None else None
    return Sample("a", root / "none.jpg", root / "mask.png", path)


def parts(labels: np.ndarray, least: int) -> set[frozenset[tuple[int, int]]]:
    """The connected parts, by flooding from each pixel."""
    left = {(y, x) for y, x in np.ndindex(labels.shape) if labels[y, x] not in (0, 255)}
    found = set()
    while left:
        start = left.pop()
        part, ahead = {start}, deque([start])
        while ahead:
            y, x = ahead.popleft()
            for near in itertools.product((y - 1, y, y + 1), (x - 1, x, x + 1)):
                if near in left and labels[near] == labels[y, x]:
                    left.remove(near)
                    part.add(near)
                    ahead.append(near)
        if len(part) >= least:
            found.add(frozenset(part))
    return found


# instance maps and objects


def test_an_object_mask_with_void_where_either_has_it(tmp_path):
    numbers = np.kron([[0, 2, 9], [255, 0, 4]], np.ones((4, 4), int))
    instances = read_instances(sample(tmp_path, BLOCKS, numbers), 8)
    assert instances.dtype == np.int32
    np.testing.assert_array_equal(instances[::4, ::4], [[0, 2, 9], [255, 0, 255]])


def test_without_object_mask_the_connected_parts(tmp_path):
    instances = read_instances(sample(tmp_path, BLOCKS), 8)
    np.testing.assert_array_equal(instances[::4, ::4], [[0, 1, 1], [2, 0, 255]])


@given(arrays(np.uint8, (6, 7), elements=st.sampled_from([0, 1, 2, 255])))
def test_components_are_found_as_by_flooding(labels):
    instances = components(labels)
    numbers = set(np.unique(instances)) - {0, 255}
    found = {frozenset(zip(*np.nonzero(instances == n), strict=True)) for n in numbers}
    assert found == parts(labels, 5)
    np.testing.assert_array_equal(instances == 255, labels == 255)


def test_no_object_has_the_number_of_void():
    labels = np.kron(np.arange(600).reshape(20, 30) % 2, np.ones((3, 3), int)).astype(np.uint8)
    labels[::3] = 0  # parts of 2 x 3 pixels that touch by no corner
    numbers = np.unique(components(labels))
    assert numbers.tolist() == [0, *range(1, 255), *range(256, 302)]


def test_sizes_that_differ(tmp_path):
    found = sample(tmp_path, BLOCKS, BLOCKS[1:])
    message = r"objects.png is \(H, W\) \(7, 12\) but the mask .*mask.png is \(8, 12\); wanted one"
    for read in (read_instances, objects):
        with pytest.raises(DataError, match=message):
            read(found, 8)


def test_unknown_ids(tmp_path):
    with pytest.raises(DataError, match="has the ids 7; wanted 0 to 5"):
        read_instances(sample(tmp_path, BLOCKS), 6)


def test_objects_have_class_box_number_and_area(tmp_path):
    numbers = np.kron([[0, 2, 9], [3, 0, 4]], np.ones((4, 4), int))
    assert objects(sample(tmp_path, BLOCKS, numbers), 8) == [
        (5, (4, 0, 8, 4), 2, 16),
        (7, (0, 4, 4, 8), 3, 16),
        (5, (8, 0, 12, 4), 9, 16),
    ]


def test_the_class_is_that_of_most_pixels_and_the_background_does_not_count():
    labels = np.array([[0, 0, 0, 3, 3, 4, 255, 255, 255, 0]], np.uint8)
    instances = np.array([[6, 6, 6, 6, 6, 6, 6, 6, 6, 8]], np.int32)
    assert instance_objects(labels, instances) == [(3, (0, 0, 9, 1), 6, 9)]


@pytest.mark.parametrize("instances", [0, 255])
def test_no_objects(instances):
    assert instance_objects(BLOCKS, np.full(BLOCKS.shape, instances, np.int32)) == []


@given(
    arrays(np.uint8, (5, 6), elements=st.sampled_from([0, 1, 2, 255])),
    arrays(np.int32, (5, 6), elements=st.sampled_from([0, 1, 7, 255, 300])),
)
def test_objects_as_found_one_by_one(labels, instances):
    expected = []
    for number in (1, 7, 300):
        inside = instances == number
        count = [np.sum(inside & (labels == label)) for label in (1, 2)]
        if sum(count):
            (y0, x0), (y1, x1) = np.argwhere(inside).min(0), np.argwhere(inside).max(0) + 1
            label = 1 if count[0] >= count[1] else 2
            expected.append((label, (x0, y0, x1, y1), number, inside.sum()))
    assert instance_objects(labels, instances) == expected
