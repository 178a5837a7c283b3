"""Settings of grids whose cells train for moments, on digits."""

BASE = {
    "model": "digits_cnn",
    "channel_multiplier": 0.25,
    "dataset": "digits",
    "pin": "ends",
    "validation": 200,
    "epochs": 2,
    "batch_size": 256,
}
