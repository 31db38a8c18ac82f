"""Image classification: training and evaluation of the classifiers that are visualized."""
