"""Every network trained on the same data for about the same time, and the page docs/compare.md.

    python -m experiments.compare --data vocmini --trunk-weights vgg16.pth

trains each network of `NETWORKS` in a run folder below RUNS/compare, measures it on the validation
part, and writes compare.md, compare.json and compare.jpg to the output folder. What is finished is
not repeated, and an interrupted training run is resumed.
"""
