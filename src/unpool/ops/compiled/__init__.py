"""Mean field of a dense CRF in machine code, by numba; used by `unpool.ops.mean_field` if possible.

`lattice` builds the lattices, `kernels` has the SIMD code, `mean_field` puts both together.
"""
