"""Made tfmot.h5, in an environment of its own, with tfmot 0.8.1 and tf_keras 2.21.

A model that tfmot quantized and trained, and `inputs` and `answers` of it beside the weights.
"""

import os
import pathlib

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import h5py
import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras as keras

layers = keras.layers
keras.utils.set_random_seed(0)
random = np.random.default_rng(0)
images = random.standard_normal((256, 6, 6, 2)).astype("float32")
labels = (images.mean((1, 2)) @ [[1.0, -1, 0], [0, 1, -1]]).argmax(-1)

inputs = keras.Input((6, 6, 2), name="image")
x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="stem")(inputs)
x = layers.ReLU(name="relu")(layers.BatchNormalization(name="bn")(x))
y = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(x)
x = layers.Flatten(name="flatten")(layers.Add(name="add")([x, y]))
x = layers.Dense(8, activation="tanh", name="hidden")(x)
model = tfmot.quantization.keras.quantize_model(
    keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x))
)
model.compile("adam", "sparse_categorical_crossentropy")
model.fit(images, labels, epochs=5, verbose=0)

path = pathlib.Path(__file__).with_name("tfmot.h5")
model.save(path, include_optimizer=False)
with h5py.File(path, "a") as file:
    file["inputs"], file["answers"] = images[:32], model.predict(images[:32], verbose=0)
