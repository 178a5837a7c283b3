"""A Keras model as a float TFLite model of builtin operators only."""

import contextlib
import tempfile
from collections.abc import Iterator

import keras
import tensorflow as tf

from bmpq_tf import graph
from bmpq_tf.export import graph_file, origin

# Of equal length, since the converter numbers outputs in the order of these names.
_INPUT, _OUTPUT = "input_{}", "output_{:06}"


class ConversionError(RuntimeError):
    """TFLite has no builtin operator for something in the model."""


def to_float_tflite(model: keras.Model) -> bytes:
    """Converts a Keras model whose kernels are plain weights; batch and other unknown sizes stay dynamic.

    Raises:
        ConversionError: the converter refuses the model; the message holds its first line and the layers to look at.
    """
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype, name=_INPUT.format(number)) for number, tensor in enumerate(model.inputs)]

    @tf.function(input_signature=specs)
    def answer(*inputs):
        structured = graph.structured_inputs(model, list(inputs))
        return {_OUTPUT.format(number): output for number, output in enumerate(keras.tree.flatten(model(structured, training=False)))}

    try:
        with _loops_unrolled(model):
            function = answer.get_concrete_function()
        # By way of files, where weights lie beside the graph: as constants in it they cost twice the memory and time.
        module = tf.Module()
        module.weights, module.serve = function.variables, function
        with tempfile.TemporaryDirectory() as folder:
            tf.saved_model.save(module, folder, signatures=function)
            converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
            content = converter.convert()
        return content if len(specs) == len(function.outputs) == 1 else _in_order(content)
    except (OSError, tf.errors.ResourceExhaustedError):
        # A temporary folder that is full is no fault of the model.
        raise
    except Exception as error:
        raise ConversionError(
            f"Model '{model.name}' does not convert to TFLite builtins: {origin.refused(model, error) or first_line(error)}{_suspects(model)} "
            "Replace what has no builtin, or build it from Keras layers."
        ) from error


def first_line(error: Exception) -> str:
    """Returns the first line of what an error says, or its class's name where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") + "." if text else f"{type(error).__name__}."


def _in_order(content: bytes) -> bytes:
    """The converter orders inputs and outputs by its own lights; its signature has the names that tell theirs."""
    file = graph_file.parse(content)
    signature, subgraph = file.signatureDefs[0], file.subgraphs[0]
    for name, entries in ((_INPUT, signature.inputs), (_OUTPUT, signature.outputs)):
        named = {graph_file.text(entry.name): int(entry.tensorIndex) for entry in entries}
        ordered = [named[name.format(number)] for number in range(len(named))]
        if name == _INPUT:
            subgraph.inputs = ordered
        else:
            subgraph.outputs = ordered
    return graph_file.serialised(file)


@contextlib.contextmanager
def _loops_unrolled(model: keras.Model) -> Iterator[None]:
    """TFLite's builtins have no loop over a batch of unknown size, so recurrent layers are converted step by step."""
    unroll = {layer: layer.unroll for layer in graph.sublayers(model) if isinstance(layer, keras.layers.RNN)}
    try:
        for layer in unroll:
            layer.unroll = True
        yield
    finally:
        for layer, before in unroll.items():
            layer.unroll = before


def _suspects(model: keras.Model) -> str:
    def named(layers) -> str:
        return ", ".join(sorted({origin.described(layer) for layer in layers}))

    layers = graph.sublayers(model)
    custom = named(layer for layer in layers if not type(layer).__module__.startswith(("keras.", "bmpq_tf.")))
    loops = named(layer for layer in layers if isinstance(layer, (keras.layers.RNN, keras.layers.TimeDistributed)))
    said = f" Layers that are not Keras's own: {custom}." if custom else ""
    if loops and any(None in tensor.shape[1:] for tensor in model.inputs):
        said += f" Layers that loop over time need a fixed number of steps in Input to be converted: {loops}."
    elif any(None in tensor.shape[1:] for tensor in model.inputs):
        said += " Some operators convert for a fixed size of the inputs only: give Input one if there is no other reason."
    return said
