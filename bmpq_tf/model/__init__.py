"""What a Keras model holds: its graph, its kernels, where its activations are rounded. Internal.

Import from bmpq_tf.
"""
