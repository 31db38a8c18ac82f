"""`unpool restore`: blurred images in, sharp ones out; and a look at a PSF."""

from unpool.cli.restore.files import restore

__all__ = ["restore"]
