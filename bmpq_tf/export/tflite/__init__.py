"""Reading, editing, inspecting and running .tflite files. Internal."""
