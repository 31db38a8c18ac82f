"""`unpool restore`: blurred images in, sharp ones out; and a look at a PSF."""

from unpool.cli.restore.files import EDGES, METHODS, restore

__all__ = ["EDGES", "METHODS", "restore"]
