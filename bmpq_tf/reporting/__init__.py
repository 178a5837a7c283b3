"""A report of a trained model and its file: one HTML page that people pass around."""
