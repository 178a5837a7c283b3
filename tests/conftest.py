"""Small models and data that many tests share.

BMPQ_DATA_DIR and BMPQ_MODELS_DIR name the folders of real data sets and of reference models; tests
that need them skip where they are not set.
"""

import gc
import itertools
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
from hypothesis import settings

from bmpq_tf import quantize_model
from bmpq_tf.emulation import root as emulated
from bmpq_tf.model.kernels import model_kernels

needs_arm64 = pytest.mark.skipif(
    not emulated.is_ready(emulated.default_root()),
    reason="there is no emulated arm64 runtime; bmpq-arm64 sets one up",
)

# These machines stall now and then; a slow example is no failure. No database: runs are alike.
settings.register_profile("ci", deadline=None, max_examples=40, database=None, derandomize=True)
settings.load_profile("ci")


_tests = itertools.count()


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(7)
    yield
    # Not freeing memory: collecting garbage over all that was traced took half of the suite.
    keras.utils.clear_session(free_memory=False)
    # TensorFlow keeps what it traced, and its converter collects garbage each time: a third of the
    # export tests' time went into walking over the same objects. Frozen, they are passed over.
    if next(_tests) % 20 == 0:
        gc.collect()
        gc.freeze()


@pytest.fixture
def data_dir() -> pathlib.Path:
    """The folder of real data sets."""
    return _folder("BMPQ_DATA_DIR")


@pytest.fixture
def models_dir() -> pathlib.Path:
    """The folder of reference models."""
    return _folder("BMPQ_MODELS_DIR")


def _folder(variable: str) -> pathlib.Path:
    if variable not in os.environ:
        pytest.skip(f"{variable} is not set")
    return pathlib.Path(os.environ[variable])


def small_model(**dense) -> keras.Model:
    """A convolution, a BatchNorm, a depthwise convolution and two dense layers, on 6x6 images of 2
    channels.
    """
    inputs = keras.Input((6, 6, 2), name="image")
    x = keras.layers.Conv2D(4, 3, use_bias=False, name="stem")(inputs)
    x = keras.layers.BatchNormalization(name="bn")(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(6, activation="relu", name="hidden", **dense)(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(x), name="small")


def sequence_model() -> keras.Model:
    """Attention, a wrapped model and a wrapped recurrent layer, on sequences of 4 vectors of 5."""
    inputs = keras.Input((4, 5))
    x = keras.layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    inner = [
        keras.Input((5,)),
        keras.layers.Dense(6, name="wide"),
        keras.layers.Dense(5, name="narrow"),
    ]
    x = keras.layers.TimeDistributed(keras.Sequential(inner, name="inner"), name="steps")(x)
    x = keras.layers.Bidirectional(keras.layers.LSTM(3, name="lstm"), name="both")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(x), name="sequences")


def small_data(count: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Images whose class can be learned: the label sets a channel's mean."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, count)
    images = generator.standard_normal((count, 6, 6, 2)).astype("float32")
    return images + labels[:, None, None, None].astype("float32"), labels


def compiled(model: keras.Model, **kwargs) -> keras.Model:
    """Compiles a classifier that returns logits."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        **{"optimizer": keras.optimizers.Adam(1e-2), "loss": loss, "jit_compile": False, **kwargs}
    )
    return model


def fitted(callback, epochs=6, model=None, **fit):
    model = model or compiled(quantize_model(small_model(), (2, 4), pin="ends"))
    images, labels = small_data()
    history = model.fit(
        images, labels, epochs=epochs, batch_size=8, verbose=0, callbacks=[callback], **fit
    )
    return model, history


def candidates(model: keras.Model) -> dict[str, tuple[int, ...]]:
    """By the last two parts of the paths but the kernel's own name."""
    return {
        "/".join(state.kernel.path.split("/")[-3:]): state.kernel.candidates
        for state in model_kernels(model)
    }


def pinned(model: keras.Model) -> set[str]:
    """The layers whose kernels are pinned."""
    return {state.layer.name for state in model_kernels(model) if state.kernel.pinned}
