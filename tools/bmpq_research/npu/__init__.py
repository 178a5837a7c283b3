"""What narrow weights are worth on an Ethos-U."""
