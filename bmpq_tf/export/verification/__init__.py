"""Does the file answer as the model does, and if not, where does it depart? Internal."""
