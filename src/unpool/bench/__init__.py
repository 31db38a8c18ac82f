"""Benchmarks: speed, the fraction of what the machine can do, and memory.

One module per subject, each with a function `measure` that returns plain values. Variants take
turns in one process, `rounds` times after a warm-up; peak memory is measured in a process per
variant. `progress` is called before each part. Numbers below 1 are an `OptionError`.
"""
