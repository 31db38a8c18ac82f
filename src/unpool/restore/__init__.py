"""Restore blurred images, with a known or an estimated PSF.

- `Restorer` takes an image and a PSF, and returns a `Restored`.
- `METHODS` is the table of the methods; `estimate_psf` finds a PSF in an image.
- `psnr`, `ssim` and `compare` measure the result if the sharp image is known.

Names are loaded when they are first used.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
