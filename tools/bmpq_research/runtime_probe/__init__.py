"""What the installed runtimes really do with narrow weights, found by running one-operator models."""
