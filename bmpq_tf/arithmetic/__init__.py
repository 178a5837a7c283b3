"""Numbers only: bit planes, scales and the fake quantizer. Knows tensors, knows no Keras."""
