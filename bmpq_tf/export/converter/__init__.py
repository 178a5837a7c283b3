"""Keras model to float .tflite, and which layer an operator comes from. Internal."""
