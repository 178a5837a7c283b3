"""A Keras model as a float TFLite model of builtin operators only."""

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.export.converter import origin, rewrites
from bmpq_tf.export.errors import ConversionError, first_line
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.layers.serialization import is_ours
from bmpq_tf.model import keras_graph

# Of equal length, since the converter numbers outputs in the order of these names.
_INPUT, _OUTPUT = "input_{}", "output_{:06}"


def to_float_model(model: keras.Model, batch_size: int | None = None):
    """Converts a Keras model whose kernels are plain weights to parsed flatbuffer objects.

    Args:
        model: the model. Sizes that it leaves open stay dynamic.
        batch_size: that of the file, where the model leaves it open.

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
        with _loops_unrolled(model), rewrites.one_axis_softmax(model):
            function = answer.get_concrete_function()
        errors = rewrites.ErrorFunctions() if rewrites.has_error_functions(function) else None
        content = None
        if errors:
            # The converter knows them in a GELU only. As custom operators it leaves the others.
            content = _converted(function, custom=True)
            if rewrites.has_custom(flatbuffer.parse(content)):
                content = None
        content = content or _converted(function, errors)
        return _in_order(flatbuffer.parse(content))
    except (OSError, MemoryError, tf.errors.ResourceExhaustedError):
        # A temporary folder, or a memory, that is full is no fault of the model.
        raise
    except Exception as error:
        raise ConversionError(
            f"Model '{model.name}' does not convert to TFLite builtins: "
            f"{origin.refused(model, error) or first_line(error)}{_suspects(model)} "
            "Replace what has no builtin, or build it from Keras layers."
        ) from error


def _converted(
    function, errors: rewrites.ErrorFunctions | None = None, custom: bool = False
) -> bytes:
    """Converts by way of files, where weights lie beside the graph: as constants in it they cost
    twice the memory and time.
    """
    module: Any = tf.Module()
    module.weights, module.serve, module.errors = function.variables, function, errors
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=function)
        if errors:
            errors.put(folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=["serving_default"]
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        converter.allow_custom_ops = custom
        return converter.convert()


def to_float_tflite(model: keras.Model) -> bytes:
    """Returns the bytes of the file that `to_float_model` parses."""
    return flatbuffer.serialised(to_float_model(model))


def _in_order(file):
    """The converter orders inputs and outputs by its own lights.

    Its signature has the names that tell theirs.
    """
    signature, subgraph = file.signatureDefs[0], file.subgraphs[0]
    for name, entries in ((_INPUT, signature.inputs), (_OUTPUT, signature.outputs)):
        named = {flatbuffer.text(entry.name): int(entry.tensorIndex) for entry in entries}
        ordered = [named[name.format(number)] for number in range(len(named))]
        if name == _INPUT:
            subgraph.inputs = ordered
        else:
            subgraph.outputs = ordered
    return file


@contextlib.contextmanager
def _loops_unrolled(model: keras.Model) -> Iterator[None]:
    """TFLite's builtins have no loop over a batch of unknown size, so recurrent layers are
    converted step by step.
    """
    before = {
        layer: (layer.unroll, layer.zero_output_for_mask)
        for layer in keras_graph.sublayers(model)
        if isinstance(layer, keras.layers.RNN)
    }
    # Step by step, Keras zeroes the masked outputs of a layer that goes backwards in the order of
    # those that go forwards.
    backwards = [
        layer
        for layer in before
        if layer.go_backwards and layer.return_sequences and layer.zero_output_for_mask
    ]
    try:
        for layer in before:
            layer.unroll = True
        for layer in backwards:
            layer.zero_output_for_mask, layer.call = False, _zeroed_backwards(layer.call)
        yield
    finally:
        for layer in backwards:
            del layer.call
        for layer, (unroll, zeroes) in before.items():
            layer.unroll, layer.zero_output_for_mask = unroll, zeroes


def _zeroed_backwards(call: Callable) -> Callable:
    @functools.wraps(call)
    def zeroed(sequences, *args, mask=None, **kwargs):
        outputs = call(sequences, *args, mask=mask, **kwargs)
        if mask is None:
            return outputs
        states = outputs[1:] if isinstance(outputs, (list, tuple)) else ()
        steps: Any = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
        flipped: Any = keras.ops.flip(keras.ops.cast(mask, steps.dtype), axis=1)
        steps = steps * flipped[..., None]
        return [steps, *states] if states else steps

    return zeroed


def _suspects(model: keras.Model) -> str:
    def named(layers) -> str:
        return ", ".join(sorted({origin.described(layer) for layer in layers}))

    layers = keras_graph.sublayers(model)
    custom = named(
        layer
        for layer in layers
        if not (keras_compat.is_from_keras(type(layer)) or is_ours(type(layer)))
    )
    loops = named(
        layer
        for layer in layers
        if isinstance(layer, (keras.layers.RNN, keras.layers.TimeDistributed))
    )
    said = f" Layers that are not Keras's own: {custom}." if custom else ""
    if loops and any(None in tensor.shape[1:] for tensor in model.inputs):
        said += f" Loops over time convert for a fixed number of steps in Input only: {loops}."
    elif any(None in tensor.shape[1:] for tensor in model.inputs):
        said += " Some operators convert for a fixed size of the inputs only: give Input one."
    return said
