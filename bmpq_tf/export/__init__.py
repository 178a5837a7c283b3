"""From a trained quantized model to a verified .tflite file, stage by stage. Internal.

Import from bmpq_tf.
"""
