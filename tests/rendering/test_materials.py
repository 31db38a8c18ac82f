"""MTL files as programs write them."""

import pytest

from unpool.rendering.materials import Map, Material, parse_materials, recode


def parse(*lines):
    text = "\n".join(["newmtl a", *lines])
    return parse_materials(text.encode(), {"a"})["a"]


@pytest.mark.parametrize(
    ("kd", "color", "note"),
    [
        ("0.25 0.5 1", (0.25, 0.5, 1), ""),
        ("0.5", (0.5, 0.5, 0.5), ""),
        ("1 0 0 # red", (1, 0, 0), ""),
        ("255 0 51", (1, 0, 0.2), "255 0 51 of 255"),
        ("1.5 0.5 0", (1, 0.5, 0), "1.5 0.5 0 of 1"),
        ("-1 0.5 0", (0, 0.5, 0), "-1 0.5 0"),
        ("0.5 0.5", None, "is not a color: 0.5 0.5"),
        ("red", None, "is not a color: red"),
        ("nan 0 0", None, "is not a color"),
        ("spectral wood.rfl", None, "is not a color"),
    ],
)
def test_colors(kd, color, note):
    material = parse(f"Kd {kd}")
    assert material.color == (color and pytest.approx(color))
    assert (note in " ".join(material.notes)) if note else not material.notes


@pytest.mark.parametrize(
    ("lines", "opacity"),
    [
        ([], 1),
        (["d 0.25"], 0.25),
        (["Tr 0.25"], 0.75),
        (["d 0.25", "Tr 0.75"], 0.25),
        (["d 1", "Tr 1"], 1),
        (["Tr 0", "d 0"], 1),
        (["d -halo 0.5"], 0.5),
        (["d x"], 1),
    ],
)
def test_opacity(lines, opacity):
    assert parse(*lines).opacity == opacity


@pytest.mark.parametrize(
    ("text", "texture"),
    [
        ("t.png", Map("t.png")),
        ("my wood.png", Map("my wood.png")),
        ("-s 1 1 1 -o 0 0 0 t.png", Map("t.png")),
        ("-s 2 3 1 -o 0.5 -.25 0 my wood.png", Map("my wood.png", (2, 3), (0.5, -0.25))),
        ("-s 2 t.png", Map("t.png", (2, 1))),
        ("-o 1 2 t.png", Map("t.png", offset=(1, 2))),
        ("-blendu on -blendv off -cc on -bm 1 -boost 2 t.png", Map("t.png")),
        ("-imfchan r -texres 512 -type sphere -mm 0 1 t.png", Map("t.png")),
        ("-clamp on t.png", Map("t.png", clamp=True)),
        ("-CLAMP off\tt.png", Map("t.png")),
        ("-s 1 1 1 2 chairs.png", Map("2 chairs.png")),
        ("-own.png", Map("-own.png")),
        ("-1.png", Map("-1.png")),
    ],
)
@pytest.mark.parametrize("key", ["map_Kd", "map_KD", "\tmap_kd"])
def test_options_of_textures(key, text, texture):
    assert parse(f"{key} {text}") == Material(texture=texture)


@pytest.mark.parametrize("option", ["-t 1 1 1", "-mm 0.1 2"])
def test_options_that_are_not_used_are_noted(option):
    material = parse(f"map_Kd {option} t.png")
    assert material.texture == Map("t.png")
    assert f"option {option[:2].strip()}" in material.notes[0]


def test_only_named_materials_are_kept_and_the_last_of_a_name_counts():
    text = b"Kd 1 1 1\nnewmtl a\nKd 1 0 0\nnewmtl b\nKd 0 1 0\nnewmtl my oak \nKd 0 0 1\nnewmtl a\n"
    assert parse_materials(text, {"a", "my oak"}) == {
        "a": Material(),
        "my oak": Material((0.0, 0.0, 1.0)),
    }


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings_by_their_mark(encoding):
    assert recode("newmtl 木\r\n".encode(encoding)) == "newmtl 木\r\n".encode()


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "latin-1"])
def test_names_in_other_encodings(encoding):
    assert "Möbel" in parse_materials("newmtl Möbel\n".encode(encoding), {"Möbel"})
