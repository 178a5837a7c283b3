"""Budgets, sensitivities and the integer program that assigns bit-widths. Free of Keras.

Internal: import from bmpq_tf.
"""
