"""What the installed runtimes really do with narrow weights, found with one-operator models."""
