"""Random models and damaged files, and what the library says of them."""
