"""Made `version_1.keras`, with the code of bmpq_tf 0.1.0 (commit 291f098).

A file of format 1 as its users have it.
"""

import pathlib
import zipfile

import keras
import numpy as np

import bmpq_tf

keras.utils.set_random_seed(1)
model = keras.Sequential(
    [keras.Input((4,)), keras.layers.Dense(6, name="wide"), keras.layers.Dense(2, name="head")],
    name="old",
)
model = bmpq_tf.quantize_model(model, (2, 4), pin="last")
model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
x = np.linspace(-1, 1, 32).reshape(8, 4).astype("float32")
model.fit(x, x[:, :2], epochs=3, verbose=0, callbacks=[bmpq_tf.BMPQCallback("7x")])
path = pathlib.Path(__file__).parent / "version_1.keras"
model.save(path)
with zipfile.ZipFile(path) as archive:
    parts = {name: archive.read(name) for name in archive.namelist()}
# The same bytes, deflated: 29 kB would be mostly zeros.
with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    for name, data in parts.items():
        archive.writestr(name, data)
print(bmpq_tf.model.kernels.allocation_history(model))
print([np.asarray(v).tolist() for v in model.predict(x[:2], verbose=0)])
