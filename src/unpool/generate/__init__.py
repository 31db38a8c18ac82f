"""Generate images of objects from their style, the view and a transformation.

- `Generator` is the network: `Generator.from_pretrained("chairs").view("stool", azimuth=30)`.
- `interpolate`, `turntable`, `morph` and `vary` generate sequences; `write_animation` writes them
  as GIF or MP4.
- `activate_units`, `push_unit` and `find_zoom_unit` show the effect of single units, `mask_cells`
  that of parts of the first maps, and `filter_sheet` the learned filters.
- `track_points` finds corresponding points of two objects.
- `compare_views` compares held-out views with baselines that need no network.

Names are loaded when they are first used, so that a command imports only what it needs.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unpool.generate.baselines import Comparison, blend, compare_views, nearest_view
    from unpool.generate.correspondence import mark_points, spread_points, track_points
    from unpool.generate.generator import Generator, Style, parse_style
    from unpool.generate.result import GeneratedImage, write_animation
    from unpool.generate.sequences import (
        CHANGES,
        MORPH_FRACTIONS,
        interpolate,
        morph,
        morph_fractions,
        turntable,
        vary,
    )
    from unpool.generate.units import (
        PATTERNS,
        activate_units,
        count_units,
        filter_sheet,
        find_zoom_unit,
        intervene,
        list_filters,
        list_layers,
        mask_cells,
        pattern,
        push_unit,
    )

_NAMES = {
    "baselines": "Comparison blend compare_views nearest_view",
    "correspondence": "mark_points spread_points track_points",
    "generator": "Generator Style parse_style",
    "result": "GeneratedImage write_animation",
    "sequences": "CHANGES MORPH_FRACTIONS interpolate morph morph_fractions turntable vary",
    "units": "PATTERNS activate_units count_units filter_sheet find_zoom_unit intervene "
    "list_filters list_layers mask_cells pattern push_unit",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [
    "CHANGES",
    "MORPH_FRACTIONS",
    "PATTERNS",
    "Comparison",
    "GeneratedImage",
    "Generator",
    "Style",
    "activate_units",
    "blend",
    "compare_views",
    "count_units",
    "filter_sheet",
    "find_zoom_unit",
    "interpolate",
    "intervene",
    "list_filters",
    "list_layers",
    "mark_points",
    "mask_cells",
    "morph",
    "morph_fractions",
    "nearest_view",
    "parse_style",
    "pattern",
    "push_unit",
    "spread_points",
    "track_points",
    "turntable",
    "vary",
    "write_animation",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(f"unpool.generate.{_HOME[name]}"), name)
    raise AttributeError(f"module 'unpool.generate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
