"""Measurements: how quick, how near to the limit of the machine, and in how much memory.

One module a subject, each with a function `measure` that gives plain values. What is compared is
run in turn, in one process; peak memory is that of processes of their own.
"""
