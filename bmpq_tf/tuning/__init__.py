"""The search for the accuracy-over-size front, by keras-tuner. Needs the extra `tune`. Internal."""
