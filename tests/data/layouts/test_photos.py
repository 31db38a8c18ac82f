import pytest

from unpool.data.layouts.photos import Photos, split_path


@pytest.fixture
def root(tmp_path):
    for name in ("images/a.jpg", "images/train/b.jpg", "images/val/b.jpg", "images/val/c d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "home", "found"),
    [
        ("a.jpg", "images", ["images/a.jpg"]),
        ("a.jpg", "", ["images/a.jpg"]),
        ("A.JPG", "images", ["images/a.jpg"]),
        ("/data/proj/a.jpg", "images", ["images/a.jpg"]),
        ("C:\\Users\\me\\images\\a.jpg", "images", ["images/a.jpg"]),
        ("../images/a.jpg", "images", ["images/a.jpg"]),
        ("../../../../etc/a.jpg", "images", ["images/a.jpg"]),
        ("file:///home/me/a.jpg", "images", ["images/a.jpg"]),
        ("https://example.org/x/a.jpg?token=1#top", "images", ["images/a.jpg"]),
        ("s3://bucket/val/b.jpg", "images", ["images/val/b.jpg"]),
        ("/data/local-files/?d=val/b.jpg", "images", ["images/val/b.jpg"]),
        ("https://example.org/val/c%20d.jpg", "images", ["images/val/c d.jpg"]),
        ("/data/upload/3/0123abcd-a.jpg", "images", ["images/a.jpg"]),
        ("b.jpg", "images/train", ["images/train/b.jpg"]),
        ("x/b.jpg", "images/val", ["images/val/b.jpg"]),
        ("VAL\\b.jpg", "images/train", ["images/val/b.jpg"]),
        ("b.jpg", "images", ["images/train/b.jpg", "images/val/b.jpg"]),
        ("b.png", "images", []),
        ("", "images", []),
        ("..", "images", []),
        ("/", "images", []),
        ("a" * 100_000, "images", []),
        ("images/a.jpg/", "", ["images/a.jpg"]),
        ("a.jpg\x00", "images", []),
    ],
)
def test_names_from_elsewhere(root, name, home, found):
    paths = Photos(root).find(name, root / home)
    assert [path.relative_to(root).as_posix() for path in paths] == found


def test_nothing_outside_is_found(root):
    (root.parent / "outside.jpg").touch()
    for name in ("../outside.jpg", str(root.parent / "outside.jpg")):
        assert Photos(root).find(name, root / "images") == []


def test_parts_after_the_last_step_up():
    assert split_path("a/../b/./c") == ["b", "c"]
    assert split_path("D:/a//b") == ["a", "b"]
