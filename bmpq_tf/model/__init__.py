"""What a Keras model holds: its graph, its kernels, where its activations are rounded. Internal: import from bmpq_tf."""
