import keras
import numpy as np

import bmpq_tf

# Ten noisy patterns to tell apart.
random = np.random.default_rng(0)
y = random.integers(0, 10, 1200)
x = random.normal(size=(10, 16, 16, 1))[y] + random.normal(size=(1200, 16, 16, 1))
x = x.astype("float32")
x_train, x_test = x[:1000], x[1000:]
y_train, y_test = y[:1000], y[1000:]

float_model = keras.Sequential(
    [
        keras.Input((16, 16, 1), name="image"),
        keras.layers.Conv2D(16, 3, strides=2, activation="relu", name="stem"),
        keras.layers.Conv2D(32, 3, strides=2, activation="relu", name="middle"),
        keras.layers.Flatten(name="flatten"),
        keras.layers.Dense(64, activation="relu", name="hidden"),
        keras.layers.Dense(10, activation="softmax", name="head"),
    ]
)
