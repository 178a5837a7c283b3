"""Files here and on an emulated ARM processor, side by side."""
