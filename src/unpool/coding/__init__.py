"""Sparse coding: train an adaptive deconvolutional network, and take images apart with it."""
