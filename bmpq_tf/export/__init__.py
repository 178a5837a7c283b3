"""From a trained quantized model to a verified .tflite file, stage by stage. Internal: import from bmpq_tf."""
