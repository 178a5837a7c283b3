"""The research beside the library.

Data sets, models, experiments, benchmarks, peers and the probe of the runtimes.
"""

# First of all: it keeps off the screen what TensorFlow writes when it is imported.
import bmpq_tf  # noqa: F401
