"""The callbacks and what they need while a model trains. Internal: import from bmpq_tf.

Nothing here has state of its own that a killed run would miss: it lies in the variables of each
kernel's quantizer (`layers/kernel_quantizer.py`), so a backup of the model
brings it back.
"""
