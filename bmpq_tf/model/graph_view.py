"""Models whose layers Python code calls, seen as graphs: whole, as one operation, or followed."""

import contextlib
import functools
import inspect
import os
import re
import weakref
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.layers.serialization import is_of_user
from bmpq_tf.model import keras_graph

Layer = keras.layers.Layer


_BOLD = re.compile(r"\x1b\[\d*m")


class NotFollowedError(ValueError):
    """A model's code cannot be run on symbolic inputs; the message says what hinders it."""


def as_graph(model: keras.Model, input_shapes=None, data=None) -> keras.Model:
    """Returns a functional model of one operation, the model itself; one that has a graph as it is.

    Args:
        model: any model.
        input_shapes: of one example: a shape, or a list or dict of them as the model takes its
            inputs; `keras.KerasTensor`s and `tf.TensorSpec`s say a dtype and the batch's size too.
            By default those of `data`, or what the model was built with, in float32.
        data: inputs as the model takes them, arrays or a data set of batches.

    Raises:
        NotFollowedError: there are no shapes, or the model cannot be called on symbolic inputs.
    """
    if keras_graph.is_graph(model):
        return model
    arguments = _symbolic_arguments(model, input_shapes, data)
    return keras.Model(arguments, _called(model, lambda: _call(model, arguments)), name=model.name)


def followed(model: keras.Model) -> keras.Model:
    """Returns a functional model of the layers that a built model's code calls, the same layers.

    Layers and models of the user's own classes are followed down to those of Keras. What is
    computed on the way counts as operations of Keras's.

    Raises:
        NotFollowedError: the model is not built, or its code needs values, such as that of
            TensorFlow's own functions.
    """
    if keras_graph.is_graph(model):
        return model
    arguments = _symbolic_arguments(model, None, None)
    # What the code does beside, such as counting its calls, is not to happen.
    with _inlined(model), keras.StatelessScope():
        outputs = _called(model, lambda: _call(model, arguments))
        return _called(model, lambda: keras.Model(arguments, outputs, name=model.name))


def ends_in_softmax(model: keras.Model) -> bool:
    """Whether a model's first output is probabilities, not logits.

    Raises:
        ValueError: a subclassed model's code cannot be followed, or it is not built.

    Example:
        >>> bmpq_tf.ends_in_softmax(float_model)
        False
        >>> answers = keras.layers.Softmax()(float_model.output)
        >>> bmpq_tf.ends_in_softmax(keras.Model(float_model.input, answers))
        True
    """
    return _ends_in(model, "Softmax", (keras.activations.softmax, tf.nn.softmax))


def ends_in_sigmoid(model: keras.Model) -> bool:
    """Whether a model's first output is probabilities, each of its own.

    Raises:
        ValueError: as `ends_in_softmax`.
    """
    return _ends_in(model, "Sigmoid", (keras.activations.sigmoid, tf.nn.sigmoid))


def _ends_in(model: keras.Model, name: str, functions: tuple) -> bool:
    last, _, place = keras_compat.producer(followed(model).outputs[0])
    while (inner := keras_graph.graph_inside(last)) is not None:
        last, _, place = keras_compat.producer(inner.outputs[place])
    # Keras's operation is called as its layer is.
    is_keras = any(
        keras_compat.is_from_keras(kind) and kind.__name__ == name for kind in type(last).__mro__
    )
    return is_keras or getattr(last, "activation", None) in functions


_SEEN: "weakref.WeakKeyDictionary[keras.Model, keras.Model | None]" = weakref.WeakKeyDictionary()


def seen(model: keras.Model) -> keras.Model | None:
    """Returns a model's graph as `followed` does, looked for once; `None` where it cannot be
    followed.
    """
    if keras_graph.is_graph(model) or not model.built:
        return model if keras_graph.is_graph(model) else None
    if model not in _SEEN:
        try:
            _SEEN[model] = followed(model)
        except NotFollowedError:
            _SEEN[model] = None
    return _SEEN[model]


def _called(model: keras.Model, call) -> Any:
    try:
        return call()
    except Exception as error:
        # Keras says which layer it called before it says what happened, in bold.
        lines = [_BOLD.sub("", line).strip() for line in str(error).splitlines()]
        told = [line for line in lines if line and not line.startswith("Exception encountered")]
        said = (told or [type(error).__name__])[0]
        said = said.split(". ")[0].rstrip(".")[:200]
        raise NotFollowedError(
            f"The code of model '{model.name}' ({type(model).__name__}) cannot be followed"
            f"{_where(error)}. Received: {said}. Write it with Keras layers and keras.ops, "
            "which take symbolic values, in place of functions that ask for the values themselves."
        ) from error


def _where(error: BaseException) -> str:
    """The innermost line of a class of the user's that an error passed, in words."""
    found, step = "", error.__traceback__
    while step is not None:
        layer, code = step.tb_frame.f_locals.get("self"), step.tb_frame.f_code
        ours = code.co_filename.startswith(os.path.dirname(os.path.dirname(__file__)))
        if (
            isinstance(layer, Layer)
            and is_of_user(layer)
            and not ours
            and _is_of_class(layer, code)
        ):
            found = (
                f": line {step.tb_lineno} of {os.path.basename(code.co_filename)}, in "
                f"{code.co_name} of '{layer.name}' ({type(layer).__name__})"
            )
        step = step.tb_next
    return found


def _is_of_class(layer: Layer, code) -> bool:
    """Whether code is that of a method that a class of the user's has."""
    own = [base for base in type(layer).__mro__ if not keras_compat.is_from_keras(base)]
    return any(getattr(vars(base).get(code.co_name), "__code__", None) is code for base in own)


def _call(model: keras.Model, arguments) -> Any:
    if isinstance(arguments, dict) and _takes(model, arguments):
        return model(**arguments)
    return model(arguments)


def _takes(model: keras.Model, arguments: dict) -> bool:
    """Whether a model's call has these arguments by name, and not one dict of them."""
    return set(arguments) <= set(inspect.signature(model.call).parameters)


def _symbolic_arguments(model: keras.Model, input_shapes, data) -> Any:
    if input_shapes is not None:
        return _mapped(input_shapes)
    if data is not None and (specs := _specs_of(model, data)) is not None:
        return _mapped(specs)
    config = model.get_build_config() if model.built else None
    if not config and isinstance(student := getattr(model, "student", None), keras.Model):
        raise NotFollowedError(
            f"Model '{model.name}' ({type(model).__name__}) trains model '{student.name}'. Give "
            "that one: its attribute student."
        )
    if not config:
        raise NotFollowedError(
            f"Model '{model.name}' ({type(model).__name__}) is not built, so what it takes is not "
            "known. Call it on a batch first, or say input_shapes=, such as (32, 32, 3)."
        )
    if "input_shape" in config:
        return _mapped(config["input_shape"], with_batch=True)
    shapes = {name.removesuffix("_shape"): shape for name, shape in config["shapes_dict"].items()}
    return _mapped(shapes, with_batch=True)


def _mapped(shapes, with_batch: bool = False, name: str | None = None) -> Any:
    """Symbolic inputs of the structure of shapes, which are tuples or lists of sizes themselves;
    those of a dict have its names, as Keras asks.
    """
    if hasattr(shapes, "dtype"):
        dtype = keras.backend.standardize_dtype(shapes.dtype)
        return keras.Input(batch_shape=tuple(shapes.shape), dtype=dtype, name=name)
    if isinstance(shapes, dict):
        return {key: _mapped(shape, with_batch, key) for key, shape in shapes.items()}
    if isinstance(shapes, tf.TensorShape) or all(
        size is None or hasattr(size, "__index__") for size in shapes
    ):
        return keras.Input(tuple(shapes)[1:] if with_batch else tuple(shapes), name=name)
    return type(shapes)(_mapped(shape, with_batch) for shape in shapes)


def _specs_of(model: keras.Model, data) -> Any:
    """What arrays or a data set hold, without the size of the batch; `None` where it does not show
    beforehand.
    """
    if isinstance(data, tf.data.Dataset):
        spec = data.element_spec
        structure = spec[0] if isinstance(spec, tuple) else spec
    elif isinstance(data, (np.ndarray, tf.Tensor, dict, list)):
        structure = keras.tree.map_structure(np.asarray, data)
    else:
        return None
    whole = any(isinstance(part, keras.layers.Embedding) for part in keras_graph.sublayers(model))

    def spec_of(one):
        # Pixels are often whole numbers where the model takes floats.
        dtype = keras.backend.standardize_dtype(one.dtype)
        dtype = dtype if "int" in dtype and whole else keras.config.floatx()
        return tf.TensorSpec((None, *tuple(one.shape)[1:]), dtype)

    return keras.tree.map_structure(spec_of, structure)


@contextlib.contextmanager
def _inlined(model: keras.Model) -> Iterator[None]:
    """While it lasts, calls of the user's own layers that hold others are calls of those."""
    parts = {
        id(part): part
        for part in keras_compat.flattened_layers(model)
        if is_of_user(part) and keras_compat.layers_inside(part) and not keras_graph.is_graph(part)
    }
    before = {key: type(part) for key, part in parts.items()}
    try:
        for part in parts.values():
            inline = _inline_class(type(part))  # pyright: ignore[reportArgumentType]
            object.__setattr__(part, "__class__", inline)
        yield
    finally:
        for key, part in parts.items():
            object.__setattr__(part, "__class__", before[key])


@functools.cache
def _inline_class(cls: Any) -> type:
    def __call__(self, *args, **kwargs):  # noqa: N807
        names = inspect.signature(self.call).parameters
        defaults = {"training": False, "mask": None}
        # A positional argument may be one of them.
        given = set(list(names)[: len(args)]) | set(kwargs)
        kwargs.update(
            {name: defaults[name] for name in defaults if name in names and name not in given}
        )
        return self.call(*args, **kwargs)

    return type(cls)(cls.__name__, (cls,), {"__call__": __call__, "__module__": cls.__module__})
