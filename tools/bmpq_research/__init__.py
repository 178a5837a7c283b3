"""The research beside the library: data sets, models, experiments, benchmarks, peers and the probe of the runtimes."""
