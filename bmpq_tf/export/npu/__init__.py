"""What a compiler for a neural processing unit makes of a file. Internal."""
