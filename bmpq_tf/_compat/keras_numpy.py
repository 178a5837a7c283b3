"""What computes `keras.ops`' NumPy functions with TensorFlow, as of Keras 3.15; tested as
`keras.py` is.
"""

from keras.src.backend.tensorflow import numpy

# Looked up there at each call, so what is put in their place is called.
FUNCTIONS = numpy
