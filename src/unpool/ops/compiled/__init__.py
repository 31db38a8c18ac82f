"""Mean field of a dense CRF in machine code, by numba; `unpool.ops.mean_field` takes it where it
can. `cells` builds the lattices, `rows` runs over them, `field` puts both together."""

from unpool.ops.compiled.mean_field import MOST_LABELS, fits, mean_field

__all__ = ["MOST_LABELS", "fits", "mean_field"]
