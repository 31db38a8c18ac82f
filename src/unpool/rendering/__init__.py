"""Rendered views of 3-D models: meshes, a renderer, and data sets of views."""
