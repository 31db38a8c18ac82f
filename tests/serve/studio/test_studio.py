"""What the pages share."""

import io

import pytest
from PIL import Image as Pillow

from tests.cli.files import photo
from tests.serve.test_intake import png_header
from unpool.errors import ImageError
from unpool.serve.refusals import Refusal
from unpool.serve.studio.studio import Image, file_response


def test_images_are_upright():
    exif = Pillow.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    photo(40, 30).save(file, "JPEG", exif=exif)
    image = Image.from_file(file.getvalue(), "cat.jpg")
    assert image.facts("i") == {"id": "i", "width": 30, "height": 40, "name": "cat.jpg"}
    with pytest.raises(ImageError):
        Image.from_file(b"hello")
    with pytest.raises(Refusal, match="9000 x 9000"):
        Image.from_file(png_header(9000, 9000))


def test_files_to_show_and_to_save():
    shown = file_response(b"a", "image/png")
    assert "content-disposition" not in shown.headers
    assert "immutable" in shown.headers["cache-control"]
    saved = file_response(b"a", "image/png", "cat.mask.png")
    assert saved.headers["content-disposition"] == 'attachment; filename="cat.mask.png"'
