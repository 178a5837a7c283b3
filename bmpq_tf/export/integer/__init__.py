"""Integer-only files: calibration, grids, static int8. Internal."""
