"""Which Keras layer an operator of a converted model comes from."""

import re
from collections.abc import Container, Iterable

import keras

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.layers.registry import quantized_entry_for
from bmpq_tf.model import keras_graph

# What the converter calls a model's outputs, numbered in the order of the signature's names.
_OUTPUT = re.compile(r"(?:Stateful)?PartitionedCall(?:_\d+)?:(\d+)")
# TensorFlow numbers a name scope that was entered before.
_SCOPE = re.compile(r"(.+?)(_\d+)?")


def described(layer) -> str:
    """Returns a layer's name and class as the user knows it."""
    entry = quantized_entry_for(layer)
    known = entry.float_class if entry else type(layer)
    return f"'{layer.name}' ({known.__name__})"


def layer_of(model: keras.Model, name: str) -> str | None:
    """Returns the innermost layer on a path such as `model/block_1/conv/BiasAdd`, described, or
    `None`.

    Args:
        model: the converted model, or one with the same names.
        name: a tensor's or an operation's; the converter joins those of what it fused with
            semicolons.
    """
    layer = found(model, name)
    return None if layer is None else described(layer)


def found(model: keras.Model, name: str):
    """Returns what `layer_of` describes: a layer, or an operation that gives one of the outputs."""
    first = name.split(";")[0]
    if output := _OUTPUT.match(first):
        return keras_compat.producer(model.outputs[int(output[1])])[0]
    layers = {layer.name: layer for layer in keras_graph.sublayers(model)}
    owner = next(
        (owner for part in reversed(first.split("/")) if (owner := _owner(part, layers))), None
    )
    return layers[owner] if owner else None


def scopes(name: str, layers: Container[str]) -> set[str]:
    """Returns which of these layers' names are on the paths in a name of all that was fused."""
    return {owner for part in re.split("[;/]", name) if (owner := _owner(part, layers))}


def _owner(part: str, layers: Container[str]) -> str | None:
    """A scope is numbered even where no other layer has its name, so `dense_1` is of `dense` where
    there is one.
    """
    numbered = _SCOPE.fullmatch(part)
    unnumbered = numbered[1] if numbered else part
    return next((name for name in (unnumbered, part) if name in layers), None)


def refused(model: keras.Model, error: Exception) -> str:
    """Returns which operations the converter has no builtin for and whose they are, in words.

    Nothing if it does not say.

    Args:
        model: the model that was converted.
        error: the converter's.
    """
    named, hints = {}, {}
    for data in getattr(error, "errors", ()):
        # A function inside a layer, such as a grouped convolution's, has names of its own.
        paths = [call.name for call in data.location.call if call.name] or [""]
        layer = next((one for path in paths if (one := found(model, path)) is not None), None)
        if data.operator.name:
            whose = f"('{paths[0]}')" if layer is None else f"of layer {described(layer)}"
            named[f"{data.operator.name} {whose}"] = None
            if layer is not None and (hint := way_out(layer)):
                hints[hint] = None
    if not named:
        return ""
    return " ".join([f"TFLite has no builtin for {_joined(named)}.", *hints])


def way_out(layer) -> str:
    """Returns what to do about a layer that no runtime has a kernel for, or nothing."""
    if isinstance(layer, keras.layers.Conv3D) and layer.groups > 1:
        return (
            "It has no grouped 3D convolution: take groups=1, or slice the channels, give each "
            "slice a Conv3D of its own and join the results with Concatenate."
        )
    if isinstance(layer, keras.layers.CategoryEncoding):
        return f"Export from its output on: inputs='{layer.name}'."
    dilation = getattr(layer, "dilation_rate", 1)
    sizes = dilation if isinstance(dilation, (list, tuple)) else (dilation,)
    return (
        "It has no kernel for that dilation_rate: take dilation_rate=1 and a larger kernel_size."
        if any(size != 1 for size in sizes)
        else ""
    )


def _joined(parts: Iterable[str]) -> str:
    *rest, last = parts
    return f"{', '.join(rest)} and {last}" if rest else last
