"""The operators: pooling with switches, unpooling, deconvolution, whitening, blur, dense CRFs.

They are functions of tensors, or layers, and need only torch; with numba, mean field runs as
machine code.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
