"""Rendered views of 3-D models: meshes, a renderer, and the data sets it writes."""
