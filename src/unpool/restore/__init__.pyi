from .estimate import estimate_psf
from .evaluate import compare, psnr, ssim
from .methods import METHODS, Method
from .restorer import Restorer
from .result import Restored, sheet

__all__ = [
    "METHODS",
    "Method",
    "Restored",
    "Restorer",
    "compare",
    "estimate_psf",
    "psnr",
    "sheet",
    "ssim",
]
