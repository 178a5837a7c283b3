"""Files for microcontrollers: kernels at their own widths, run and measured in TFLM. Internal."""
