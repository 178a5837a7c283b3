"""Kernels in the file: search, match, storage, lowering, packing. Internal."""
