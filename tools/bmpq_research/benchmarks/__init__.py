"""Speed and memory, measured: one module a suite.

`tools/benchmark.py` runs them and prints what they return.
"""
