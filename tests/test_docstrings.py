"""Every public docstring has an example, and it gives what it says.

An example may use these names, which the tests provide, and what it imports:

    keras, np, bmpq_tf
    float_model  Input (8, 8, 1) -> Conv2D(4, 3, relu, "conv") -> Flatten -> Dense(10, "head");
                 fresh and seeded for each docstring
    model        that one quantized with pin=None, compiled and trained for an epoch
    images       float32, (32, 8, 8, 1)
    labels       int, (32,)
    folder       a temporary pathlib.Path
"""

import doctest
import inspect
import operator
import warnings

import keras
import numpy as np
import pytest

import bmpq_tf

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
METHODS = ("BMPQCallback.check", "Budget.parse")
NAMES = (
    *(name for name in bmpq_tf.__all__ if name not in ("__version__", "layers")),
    *METHODS,
    *(f"layers.{name}" for name in bmpq_tf.layers.__all__),
)
# Whose examples need what an extra brings.
NEEDS = {
    **dict.fromkeys(("VelaError", "VelaReport", "inspect_vela"), "ethosu"),
    "smallest_budget": "keras_tuner",
}
# Whose examples change `model`, and so get a copy.
CHANGING = {"BMPQCallback", "BackupAndRestore", "SelfDistiller", "assign_bits", "drop_channels"}
SLOW = {"smallest_budget"}


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, 32)
    images = generator.standard_normal((32, 8, 8, 1)).astype("float32")
    return images + 0.1 * labels[:, None, None, None].astype("float32"), labels


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """The model, and the file that holds it."""
    keras.utils.set_random_seed(7)
    model = bmpq_tf.quantize_model(float_model(), pin=None)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
    model.fit(*data, epochs=1, verbose=0)
    path = tmp_path_factory.mktemp("model") / "model.keras"
    model.save(path)
    return model, path


def float_model() -> keras.Model:
    inputs = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, keras.layers.Dense(10, name="head")(x), name="small")


def own_docstring(name: str) -> str:
    """Returns what the object itself says, not what it inherits."""
    documented = operator.attrgetter(name)(bmpq_tf)
    own = vars(documented).get("__doc__") if inspect.isclass(documented) else documented.__doc__
    return inspect.cleandoc(own or "")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in NAMES],
)
def test_the_example_of_a_docstring_gives_what_it_says(name, data, trained, tmp_path):
    docstring = own_docstring(name)
    assert ">>> " in docstring, f"The docstring of bmpq_tf.{name} has no example."
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    model, path = trained
    offered = {
        "keras": keras,
        "np": np,
        "bmpq_tf": bmpq_tf,
        "float_model": float_model(),
        "model": keras.models.load_model(path) if name in CHANGING else model,
        "images": data[0],
        "labels": data[1],
        "folder": tmp_path,
    }
    examples = doctest.DocTestParser().get_doctest(docstring, offered, name, None, 0)
    told: list[str] = []
    before = model.get_weights()
    # As in a program: a warning is no error, and one of deprecation is not shown.
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)
        doctest.DocTestRunner(verbose=False, optionflags=FLAGS).run(examples, out=told.append)
    if told:
        pytest.fail("".join(told), pytrace=False)
    same = all(map(np.array_equal, model.get_weights(), before))
    assert same, f"The example changes `model`: add '{name}' to CHANGING."
