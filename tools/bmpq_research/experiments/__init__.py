"""Training runs as the paper's experiments need them: one configuration in, one report out."""
