"""Quantizers, scales and bit gradients as TensorFlow functions; no state, no Keras layers.

Internal.
"""
