"""Names that other libraries do not export and that bmpq_tf needs, each used here alone and each
with a test. Internal.
"""
