"""The research beside the library.

Data sets, models, experiments, benchmarks, peers and the probe of the runtimes.
"""
