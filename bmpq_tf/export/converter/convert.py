"""A Keras model as a float TFLite model of builtin operators only."""

import contextlib
import tempfile
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from bmpq_tf.export.converter import einsum, loops, origin, rewrites, upsampling
from bmpq_tf.export.errors import ConversionError, first_line
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.standard_error import hushed
from bmpq_tf.layers.serialization import is_of_user
from bmpq_tf.model import keras_graph

# Of equal length, since the converter numbers outputs in the order of these names.
_INPUT, _OUTPUT = "input_{}", "output_{:06}"

_FIXED = " Give Input them, or the export: input_shapes=, such as input_shapes=(32, 32, 3)."


def to_float_model(model: keras.Model, batch_size: int | None = None, *, unroll: bool = False):
    """Converts a Keras model whose kernels are plain weights to parsed flatbuffer objects.

    Args:
        model: the model. Sizes that it leaves open stay dynamic.
        batch_size: that of the file, where the model leaves it open.
        unroll: whether recurrent layers are converted step by step, and not as loops.

    Raises:
        ConversionError: the converter refuses the model; the message holds its first line and the
            layers to look at.
    """
    specs = [
        tf.TensorSpec(
            (tensor.shape[0] or batch_size, *tensor.shape[1:]),
            tensor.dtype,
            name=_INPUT.format(number),
        )
        for number, tensor in enumerate(model.inputs)
    ]

    @tf.function(input_signature=specs)
    def answer(*inputs):
        structured = keras_graph.structured_inputs(model, list(inputs))
        return {
            _OUTPUT.format(number): output
            for number, output in enumerate(keras.tree.flatten(model(structured, training=False)))
        }

    try:
        as_loops = loops.unrolled if unroll else loops.as_while
        # What is changed in the model for the conversion holds variables, so until it is over.
        with (
            as_loops(model),
            rewrites.one_axis_softmax(model),
            rewrites.sums_along_any_axis(),
            rewrites.plain_extremes(),
            einsum.in_known_forms(model),
            upsampling.as_resizing(model),
        ):
            content = _with_error_functions(answer.get_concrete_function())
        return _in_order(flatbuffer.parse(content))
    except (OSError, MemoryError, tf.errors.ResourceExhaustedError):
        # A temporary folder, or a memory, that is full is no fault of the model.
        raise
    except Exception as error:
        raise ConversionError(
            f"Model '{model.name}' does not convert to TFLite builtins: "
            f"{origin.refused(model, error) or first_line(error)}{_suspects(model, unroll)} "
            "Replace what has no builtin, or build it from Keras layers."
        ) from error


def _with_error_functions(function) -> bytes:
    """Converts with `tf.Erf` and `tf.Erfc` as functions of our own where they are no part of a
    GELU, the only place that the converter knows them in.
    """
    if not rewrites.has_error_functions(function):
        return _converted(function)
    # As custom operators it leaves those that it does not know.
    content = _converted(function, custom=True)
    if any(code.customCode for code in flatbuffer.parse(content).operatorCodes):
        content = _converted(function, rewrites.ErrorFunctions())
    return content


def _converted(
    function, errors: rewrites.ErrorFunctions | None = None, custom: bool = False
) -> bytes:
    """Converts by way of files, where weights lie beside the graph: as constants in it they cost
    twice the memory and time.
    """
    module: Any = tf.Module()
    module.weights, module.serve, module.errors = function.variables, function, errors
    with tempfile.TemporaryDirectory() as folder:
        with _at_work_quietly():
            tf.saved_model.save(module, folder, signatures=function)
        if errors:
            errors.put(folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=["serving_default"]
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        converter.allow_custom_ops = custom
        # The file gets our own; TensorFlow's costs two copies of it.
        converter.exclude_conversion_metadata = True
        # It writes what it refuses as it sees it, in pages; the error has it too.
        with hushed():
            return converter.convert()


@contextlib.contextmanager
def _at_work_quietly() -> Iterator[None]:
    """TensorFlow tells where it writes, in a notebook among what the user prints."""
    logger = tf.get_logger()
    before = logger.level
    logger.setLevel("WARNING")
    try:
        yield
    finally:
        logger.setLevel(before)


def to_float_tflite(model: keras.Model) -> bytes:
    """Returns the bytes of the file that `to_float_model` parses."""
    return flatbuffer.serialised(to_float_model(model))


def _in_order(file):
    """The converter orders inputs and outputs by its own lights.

    Its signature has the names that tell theirs.
    """
    signature, subgraph = file.signatureDefs[0], file.subgraphs[0]
    for ends, name in (("inputs", _INPUT), ("outputs", _OUTPUT)):
        entries = getattr(signature, ends)
        named = {flatbuffer.text(entry.name): entry.tensorIndex for entry in entries}
        setattr(subgraph, ends, [named[name.format(number)] for number in range(len(named))])
    return file


def _suspects(model: keras.Model, unroll: bool) -> str:
    def named(layers) -> str:
        return ", ".join(sorted({origin.described(layer) for layer in layers}))

    layers = keras_graph.sublayers(model)
    custom = named(layer for layer in layers if is_of_user(layer))
    stepwise = named(
        layer
        for layer in layers
        if isinstance(layer, keras.layers.TimeDistributed)
        or (isinstance(layer, keras.layers.RNN) and (unroll or not loops.has_keras_loop(layer)))
    )
    said = f" Layers that are not Keras's own: {custom}." if custom else ""
    if stepwise and any(None in tensor.shape[1:] for tensor in model.inputs):
        said += f" Loops over time convert for a fixed number of steps only: {stepwise}.{_FIXED}"
    elif any(None in tensor.shape[1:] for tensor in model.inputs):
        said += f" Some operators convert for fixed sizes of the inputs only.{_FIXED}"
    return said
