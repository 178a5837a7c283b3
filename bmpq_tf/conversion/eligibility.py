"""Why a layer with kernels stays float.

What the registry does not know, and what quantization would silently break.
"""

from collections.abc import Iterator

import keras

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.conversion.layer_configs import with_functions
from bmpq_tf.layers.base import unsupported_policy
from bmpq_tf.layers.inheritance import (
    config_of_parent,
    keras_class,
    keras_parent,
    overridden,
)
from bmpq_tf.layers.registry import entry_for, registered
from bmpq_tf.layers.serialization import is_of_user
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
    """Returns, by the id of the model and of each layer below it that has kernels, or may have once
    it is built, and cannot be quantized, the reason as half a sentence.
    """
    unknown = _unknown_holders(model)
    tied = _tied_layers(model)
    reasons = {}
    for layer in keras_compat.flattened_layers(model):
        known_later = not layer.built and entry_for(layer) is not None
        has_kernels = known_later or keras_graph.kernel_variables(layer)
        if not has_kernels and id(layer) not in unknown:
            if isinstance(layer, keras.layers.EinsumDense) and layer.built:
                reasons[id(layer)] = (
                    "its kernel is a vector, which stays float and counts nothing, like a bias"
                )
            continue
        reason = unknown.get(id(layer)) or own_reason(layer) or tied.get(id(layer))
        if reason:
            reasons[id(layer)] = reason
    return reasons


def _unknown_holders(model: keras.Model) -> dict[int, str]:
    """Layers inside a layer that is no model and that the registry does not know."""
    found: dict[int, str] = {}
    parts = keras_graph.sublayers(model)
    # Copies are made of graphs; what stands elsewhere is changed in place.
    in_place = {
        id(one)
        for holder in (model, *parts)
        if not keras_graph.is_graph(holder) and is_of_user(holder)
        for one in keras_graph.sublayers(holder)
    }
    for holder in parts:
        # A sequential model that is not built has no graph yet.
        is_model = keras_graph.is_graph(holder) or isinstance(holder, keras.Sequential)
        if is_model or id(holder) in found:
            continue
        # What stands inside classes of the user's is quantized where it stands; not a loop's cell,
        # which would count each step as a use of its own.
        keeps = _rescales(holder) or isinstance(holder, keras.layers.RNN)
        if is_of_user(holder) and not keeps and not entry_for(holder):
            continue
        entry = entry_for(holder)
        added = _added(holder) if entry and entry.is_composite else None
        if entry and not added:
            if entry.is_composite:
                found |= _behind_others(holder, id(holder) in in_place)
            continue
        what = (
            "which rescales its kernel at every step"
            if _rescales(holder)
            else f"whose class adds {added} to those of {entry.float_class.__name__}"
            if entry
            else "which bmpq_tf does not know"
        )
        for part in keras_graph.sublayers(holder):
            found.setdefault(
                id(part), f"it is inside '{holder.name}' ({type(holder).__name__}), {what}"
            )
    return found


def _behind_others(composite: Layer, is_in_place: bool) -> dict[int, str]:
    """Layers that a composite holds by way of what the registry does not know, which is not gone
    into: models where layers are changed in place, and classes of the user's.
    """
    found = {}
    for part in keras_compat.layers_inside(composite):
        if entry_for(part):
            continue
        is_copied = keras_graph.is_graph(part) and not is_in_place
        inside = keras_compat.flattened_layers(part)
        own = [
            one
            for one in inside
            if is_of_user(one) and not (keras_graph.is_graph(one) or entry_for(one))
        ]
        for holder in own if is_copied else [part]:
            what = (
                f"it is inside '{holder.name}' ({type(holder).__name__}), which '{composite.name}' "
                f"({type(composite).__name__}) calls"
            )
            found.update({id(one): what for one in keras_graph.sublayers(holder)})
    return found


def _rescales(holder: Layer) -> bool:
    return isinstance(holder, keras.layers.SpectralNormalization)


def own_reason(layer: Layer) -> str | None:
    """Returns why a layer's own kernels stay float, wherever it stands; `None` if they need not."""
    entry = entry_for(layer)
    if entry is None:
        return _why_not_as_parent(layer)
    if (added := _added(layer)) is not None:
        return f"its class derives from {entry.float_class.__name__} and adds {added}"
    if getattr(layer, "lora_enabled", False):
        return "LoRA is enabled on it, so that its kernel is a sum"
    if (why := unsupported_policy(layer)) is not None:
        return why
    kernels = [
        variable
        for variable in keras_graph.kernel_variables(layer)
        if variable.name in entry.kernel_channel_axes
    ]
    held = [kernel.constraint for kernel in kernels] or [
        value
        for name, value in vars(layer).items()
        if name.endswith("_constraint") and not name.endswith("bias_constraint")
    ]
    constraints = sorted({type(one).__name__ for one in held if one is not None})
    if constraints:
        return (
            f"its kernel is constrained ({', '.join(constraints)}), and a constraint would "
            "hold for the float weights only"
        )
    return "its kernel has no elements" if any(0 in kernel.shape for kernel in kernels) else None


def _why_not_as_parent(layer: Layer) -> str:
    """Why a layer without an entry has none."""
    parent = keras_parent(layer)
    if parent not in {entry.float_class for entry in registered()}:
        return "bmpq_tf has no quantized twin of its class"
    return (
        f"its class derives from {parent.__name__} and has its own "
        f"{', '.join(overridden(layer))}, so it may compute something else"
    )


def _added(layer: Layer) -> str | None:
    """What a subclass that computes as its parent holds beside what that has, in words."""
    if keras_compat.is_from_keras(type(layer)):
        return None
    parent = keras_class(layer)
    assert parent is not None
    plain = parent.from_config(with_functions(layer, config_of_parent(layer)))
    if layer.built:
        plain.build_from_config(layer.get_build_config())
    inside, plain_inside = (len(keras_graph.sublayers(one)) for one in (layer, plain))
    own, plain_own = (
        [tuple(variable.shape) for variable in keras_compat.own_variables(one)]
        for one in (layer, plain)
    )
    if inside != plain_inside:
        return "layers"
    return None if own == plain_own else "weights"


def _tied_layers(model: keras.Model) -> dict[int, str]:
    """Layers that share a kernel's variable, or that stand in two places of which one is inside
    another layer.
    """
    holders: dict[int, list[tuple[Layer, Layer]]] = {}
    for outer in outermost_layers(model):
        for part in keras_compat.flattened_layers(outer):
            for variable in keras_graph.kernel_variables(part):
                holders.setdefault(id(variable), []).append((outer, part))
    found: dict[int, str] = {}
    in_place = not keras_graph.is_graph(model)
    for places in holders.values():
        if in_place and len({id(part) for _, part in places}) == 1:
            continue
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
