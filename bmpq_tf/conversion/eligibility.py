"""Why a layer with kernels stays float.

What the registry does not know, and what quantization would silently break.
"""

from collections.abc import Iterator

import keras

from bmpq_tf.layers.base import unsupported_policy
from bmpq_tf.layers.registry import entry_for, registered
from bmpq_tf.model import keras_graph

Layer = keras.layers.Layer


def check_not_quantized_by_keras(model: keras.Model) -> None:
    """Raises ValueError if Keras's own `quantize` has replaced weights of the model."""
    modes = {
        layer.name: layer.quantization_mode
        for layer in keras_graph.sublayers(model)
        if getattr(layer, "quantization_mode", None)
    }
    if modes:
        listed = ", ".join(f"'{name}' ({mode})" for name, mode in modes.items())
        raise ValueError(
            f"Keras has quantized layers of model '{model.name}' already, so their float weights "
            f"are gone or scaled. Received: {listed}. "
            "Give bmpq_tf the model as it was before quantize()."
        )


def ineligible_layers(model: keras.Model) -> dict[int, str]:
    """Returns, by the id of each layer below `model` that has kernels and cannot be quantized, the
    reason as half a sentence.
    """
    unknown = _unknown_holders(model)
    tied = _tied_layers(model)
    reasons = {}
    for layer in keras_graph.sublayers(model):
        if not keras_graph.kernel_variables(layer):
            continue
        reason = unknown.get(id(layer)) or _own_reason(layer) or tied.get(id(layer))
        if reason:
            reasons[id(layer)] = reason
    return reasons


def _unknown_holders(model: keras.Model) -> dict[int, str]:
    """Layers inside a layer that is no model and that the registry does not know."""
    found: dict[int, str] = {}
    for holder in keras_graph.sublayers(model):
        if keras_graph.is_graph(holder) or entry_for(holder) or id(holder) in found:
            continue
        what = (
            "which rescales its kernel at every step"
            if isinstance(holder, keras.layers.SpectralNormalization)
            else "which bmpq_tf does not know"
        )
        for part in keras_graph.sublayers(holder):
            found.setdefault(
                id(part), f"it is inside '{holder.name}' ({type(holder).__name__}), {what}"
            )
    return found


def _own_reason(layer: Layer) -> str | None:
    entry = entry_for(layer)
    if entry is None:
        known = next(
            (
                type_
                for type_ in type(layer).__mro__
                if type_ in {e.float_class for e in registered()}
            ),
            None,
        )
        return (
            f"its class derives from {known.__name__} and may do anything"
            if known
            else "bmpq_tf has no quantized twin of its class"
        )
    if getattr(layer, "lora_enabled", False):
        return "LoRA is enabled on it, so that its kernel is a sum"
    if (why := unsupported_policy(layer)) is not None:
        return why
    kernels = [
        variable
        for variable in keras_graph.kernel_variables(layer)
        if variable.name in entry.kernel_channel_axes
    ]
    constraints = sorted(
        {type(kernel.constraint).__name__ for kernel in kernels if kernel.constraint is not None}
    )
    if constraints:
        return (
            f"its kernel is constrained ({', '.join(constraints)}), and a constraint would "
            "hold for the float weights only"
        )
    return "its kernel has no elements" if any(0 in kernel.shape for kernel in kernels) else None


def _tied_layers(model: keras.Model) -> dict[int, str]:
    """Layers that share a kernel's variable, or that stand in two places of which one is inside
    another layer.
    """
    holders: dict[int, list[tuple[Layer, Layer]]] = {}
    for outer in outermost_layers(model):
        for part in [outer, *keras_graph.sublayers(outer)]:
            for variable in keras_graph.kernel_variables(part):
                holders.setdefault(id(variable), []).append((outer, part))
    found: dict[int, str] = {}
    for places in holders.values():
        for outer, part in places if len(places) > 1 else ():
            other, other_part = next(place for place in places if place != (outer, part))
            tie = (
                f"it is also inside '{other.name}'"
                if other_part is part
                else f"its kernel is also that of '{other_part.name}'"
            )
            found.setdefault(id(part), tie + ", and they would need one width")
    return found


def outermost_layers(model: keras.Model) -> Iterator[Layer]:
    """Yields the layers of a model and of the models nested in it, each once, without what is
    inside layers.
    """
    seen: set[int] = set()
    pending = list(model.layers)
    while pending:
        layer = pending.pop(0)
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        if keras_graph.is_graph(layer):
            pending = [*layer.layers, *pending]
        else:
            yield layer
