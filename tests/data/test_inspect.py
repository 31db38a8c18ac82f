import io
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from tests.data.plain import LABELS, only, photo
from unpool.data import check_data
from unpool.vision.images import read_image, voc_palette, write_mask


def turn(path: Path, orientation: int, image: np.ndarray) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(image).save(path, exif=exif)


# files


def test_an_image_without_mask(root):
    (root / "masks/val/7.png").unlink()
    level, where, message = only(root, "missing-mask")
    assert (level, where) == ("error", "masks/val/7")
    assert "found no file for 'val/7'" in message


def test_a_mask_without_image(root):
    (root / "images/val/7.png").rename(root / "images/val/seven.png")
    (root / "masks/val/7.png").rename(root / "masks/val/seven.tif")
    write_mask(root / "masks/val/7.png", LABELS)
    (root / "masks/val/seven.tif").unlink()
    Image.fromarray(LABELS).save(root / "masks/val/seven.tif")
    level, where, message = only(root, "extra-mask")
    assert (level, where) == ("warning", "masks/val/7.png")
    assert "belongs to no image" in message


def test_two_masks_of_an_image(root):
    Image.fromarray(LABELS).save(root / "masks/val/7.bmp")
    level, where, message = only(root, "ambiguous-name")
    assert (level, where) == ("error", "masks/val/7")
    assert "(7.bmp, 7.png); keep one" in message


@pytest.mark.parametrize("part", ["images", "masks"])
@pytest.mark.parametrize(
    ("keep", "message"),
    [(0, "is empty (0 bytes)"), (60, "is broken or cut short"), (5, "is not an image")],
)
def test_a_file_that_cannot_be_read(root, part, keep, message):
    path = root / part / "val/7.png"
    path.write_bytes(path.read_bytes()[:keep])
    level, where, found = only(root, "unreadable")
    assert (level, where) == ("error", f"{part}/val/7.png")
    assert found.startswith(message)


def test_half_a_jpeg_which_other_readers_fill_with_gray(root):
    file = io.BytesIO()
    Image.fromarray(photo(7)).resize((300, 200)).save(file, "JPEG")
    (root / "images/val/7.png").unlink()
    (root / "images/val/7.jpg").write_bytes(file.getvalue()[: len(file.getvalue()) // 2])
    assert only(root, "unreadable")[1] == "images/val/7.jpg"


# masks


def test_sizes_that_differ(root):
    write_mask(root / "masks/val/7.png", LABELS[1:])
    level, where, message = only(root, "size-differs")
    assert (level, where) == ("error", "images/val/7.png")
    assert message.startswith("is 30 x 20 but its mask is 30 x 19; check")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_mask_that_did_not_follow_the_exif_rotation(root, suffix):
    (root / "images/val/7.png").unlink()
    turn(root / f"images/val/7{suffix}", 6, photo(7))
    level, where, message = only(root, "exif")
    assert (level, where) == ("error", f"images/val/7{suffix}")
    assert message.startswith("is 20 x 30 when rotated by its EXIF orientation 6, but")
    assert "its mask is 30 x 20; rotate the mask" in message


def test_a_mask_that_followed_the_exif_rotation(root):
    turn(root / "images/val/7.png", 6, photo(7))
    write_mask(root / "masks/val/7.png", LABELS.T)
    assert check_data(root).findings == []


@pytest.mark.parametrize(("orientation", "side"), [(3, 30), (2, 30), (6, 20)])
def test_exif_rotation_that_sizes_do_not_reveal(root, orientation, side):
    turn(root / "images/val/7.png", orientation, photo(7)[:, :side])
    write_mask(root / "masks/val/7.png", LABELS[:, :side])
    level, where, message = only(root, "exif")
    assert (level, where) == ("warning", "images/val/7.png")
    assert f"orientation {orientation}, and the size does not show" in message


@pytest.mark.parametrize(
    ("colors", "hint"),
    [
        (voc_palette()[LABELS], "(colors: 3, all are VOC's: pass by_color=True)"),
        (photo(0), "(colors: 30, not all are VOC's: write labelmap.txt at the root"),
    ],
)
def test_a_color_coded_mask(root, colors, hint):
    Image.fromarray(colors).save(root / "masks/val/7.png")
    level, where, message = only(root, "color-mask")
    assert (level, where) == ("error", "masks/val/7.png")
    assert message.startswith("has mode RGB, as a color-coded mask does, wanted class indices")
    assert hint in message


def test_a_gray_mask_with_transparency(root):
    colors = np.dstack([LABELS] * 3 + [np.where(LABELS, 255, 0).astype(np.uint8)])
    Image.fromarray(colors).save(root / "masks/val/7.png")
    assert "all are gray: if the gray values are the indices, save" in only(root, "color-mask")[2]


def test_a_jpeg_for_a_mask(root):
    file = io.BytesIO()
    Image.fromarray(LABELS).save(file, "JPEG")
    (root / "masks/val/7.png").write_bytes(file.getvalue())
    level, where, message = only(root, "unusable-mask")
    assert (level, where) == ("error", "masks/val/7.png")
    assert message == "is a JPEG, which alters class indices; save masks as PNG"


def test_unknown_ids(root):
    write_mask(root / "masks/val/7.png", LABELS * 2)
    level, where, message = only(root, "unknown-ids")
    assert (level, where) == ("error", "masks/val/7.png")
    assert message.startswith("has the ids 4, wanted 0 to 2, or 255 for void; correct")


def test_a_mask_that_is_void_all_over(root):
    write_mask(root / "masks/val/7.png", LABELS * 0 + 255)
    level, where, message = only(root, "void-only")
    assert (level, where) == ("warning", "masks/val/7.png")
    assert message == "is all void (255), wanted labels; label it or remove it"


def test_objects_marked_by_255(root):
    for path in root.glob("masks/*/*"):
        write_mask(path, np.where(LABELS, 255, 0))
    level, where, message = only(root, "only-background")
    assert (level, where) == ("error", "masks")
    assert message.startswith("contain only 0 (background) and 255 (void); label objects with 1, 2")


def test_objects_marked_by_255_in_a_split(root):
    for path in root.glob("masks/val/*"):
        write_mask(path, np.where(LABELS, 255, 0))
    findings = [f for f in check_data(root).findings if f.kind != "empty-class"]
    assert [f[:3] for f in findings] == [
        ("error", "only-background", "val"),
        ("warning", "void-objects", "masks"),
    ]


def test_objects_marked_by_255_in_some_masks(root):
    for i in (5, 6):
        write_mask(root / f"masks/val/{i}.png", np.where(LABELS, 255, 0))
    level, where, message = only(root, "void-objects")
    assert (level, where) == ("warning", "masks")
    assert message.startswith("hold only 0 and 255 (void) for val/5, val/6; if 255 marks objects")


@pytest.mark.parametrize("form", ["noise", "smooth", "colors"])
@pytest.mark.parametrize("named", [True, False])
def test_a_photo_in_place_of_a_mask_is_one_finding(root, form, named):
    if not named:
        (root / "classes.txt").unlink()
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    if form == "smooth":
        image = np.asarray(Image.fromarray(image[::4, ::6]).resize((30, 20)))
    gray = image if form == "colors" else image[:, :, 0]
    Image.fromarray(gray).save(root / "masks/val/7.png")
    level, where, message = only(root, "photo")
    assert (level, where) == ("error", "masks/val/7.png")
    assert re.match(r"looks like a photo, not a mask: \d+ (ids|colors).*; put the mask", message)
    assert len(check_data(root).classes) == 3


def test_many_ids_in_even_regions_are_a_mask(root):
    (root / "classes.txt").write_text("\n".join(f"thing {i}" for i in range(60)))
    image = np.kron(np.arange(60).reshape(6, 10), np.ones((12, 12), int))
    Image.fromarray(photo(7)).resize((120, 72)).save(root / "images/val/7.png")
    write_mask(root / "masks/val/7.png", image)
    assert {f.kind for f in check_data(root).findings} == {"empty-class"}


# objects


def test_objects_are_counted_where_there_are_object_masks(root):
    for path in root.glob("masks/*/*"):
        write_mask(root / "instances" / path.relative_to(root / "masks"), LABELS * 3)
    report = check_data(root)
    assert report.findings == []
    assert [count.objects for count in report.classes] == [
        {"train": 0, "val": 0},
        {"train": 5, "val": 5},
        {"train": 5, "val": 5},
    ]
    for name in ("train/0", "val/7"):
        (root / f"instances/{name}.png").unlink()
    level, where, message = only(root, "no-object-mask")
    assert (level, where) == ("warning", "instances")
    assert message.startswith("has no object mask of train/0, val/7; draw them")


@pytest.mark.parametrize(
    ("objects", "kind", "message"),
    [
        (LABELS[1:], "size-differs", "is 30 x 19 but the mask 30 x 20"),
        (LABELS // 2 + 1, "objects-differ", "has 300 of 600 pixels whose class is not that"),
        (LABELS[::-1], "objects-differ", "pixels whose class is not that of their object"),
        (None, "unreadable", "is empty"),
    ],
)
def test_object_masks_that_do_not_fit(root, objects, kind, message):
    for path in root.glob("masks/*/*"):
        write_mask(root / "instances" / path.relative_to(root / "masks"), LABELS)
    if objects is None:
        (root / "instances/val/7.png").write_bytes(b"")
    else:
        write_mask(root / "instances/val/7.png", objects)
    _, where, found = only(root, kind)
    assert where == "instances/val/7.png"
    assert message in found


def test_large_images_are_read_one_at_a_time(root, monkeypatch):
    reading = set()

    def read(path):
        assert not reading
        reading.add(path)
        time.sleep(0.01)
        reading.remove(path)
        return read_image(path)

    monkeypatch.setattr("unpool.data.inspect.read_image", read)
    monkeypatch.setattr("unpool.data.inspect.MAX_AT_ONCE", 500)
    assert check_data(root).findings == []
