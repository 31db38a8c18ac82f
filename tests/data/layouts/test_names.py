import pytest

from unpool.data.layouts import Names, read_names
from unpool.errors import DataError


@pytest.mark.parametrize(
    "name", ["Unlabelled", "unlabeled", "VOID", "ignore", "Ignored", "Unlabelled (ignore, id 2)"]
)
def test_a_last_line_of_void_is_no_class(tmp_path, name):
    (tmp_path / "classes.txt").write_text(f"sky\nsea\n{name}\n\n")
    assert read_names(tmp_path / "classes.txt") == Names(["sky", "sea"], 2)


@pytest.mark.parametrize("name", ["voids", "unlabelled things", "ignorance", "avoid"])
def test_other_names_are_classes(tmp_path, name):
    text = f"sky\nsea\n{name}\n" if " " not in name else f"{name}\nsky\nsea\n"
    (tmp_path / "classes.txt").write_text(text)
    names = read_names(tmp_path / "classes.txt")
    assert (len(names.classes), names.void) == (3, 255)


def test_void_and_one_class_are_too_few(tmp_path):
    (tmp_path / "classes.txt").write_text("sky\nvoid\n")
    with pytest.raises(DataError, match=r"got 1 names in .*; wanted 2 to 255, one per line"):
        read_names(tmp_path / "classes.txt")


def test_255_classes_beside_void_fit(tmp_path):
    lines = [*(f"thing {i}" for i in range(255)), "void"]
    (tmp_path / "classes.txt").write_text("\n".join(lines))
    assert read_names(tmp_path / "classes.txt") == Names(lines[:-1], 255)
