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

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
