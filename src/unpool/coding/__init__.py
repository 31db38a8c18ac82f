"""Sparse coding: train adaptive deconvolutional networks, and decompose images with them."""
