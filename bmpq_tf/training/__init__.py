"""The callbacks and what they need while a model trains. Internal: import from bmpq_tf."""
