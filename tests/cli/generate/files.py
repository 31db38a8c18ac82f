"""The measures of written files."""

from PIL import Image


def size(path):
    with Image.open(path) as found:
        return found.size


def frames(path):
    with Image.open(path) as found:
        return found.n_frames
