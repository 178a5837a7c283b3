"""From a float model to a quantized one and back. Internal: import from bmpq_tf."""
