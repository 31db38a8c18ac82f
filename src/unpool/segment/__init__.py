"""Semantic segmentation: images in, a class for every pixel out; training and evaluation."""
