"""Occlusion maps of classifiers and of segmentation networks."""
