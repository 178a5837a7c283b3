"""From a float Keras model to a quantized one and back, by cloning: the models handed in stay as they are."""

import warnings
from collections.abc import Callable, Iterable

import keras

from bmpq_tf import graph
from bmpq_tf.layers import (
    ActivationQuantizer,
    KernelQuantizer,
    QuantIdentity,
    QuantizedLayer,
    QuantizerConfig,
    QuantReLU,
    entry_for,
    quantized_entry_for,
)
from bmpq_tf.layers.config import checked_activation_bits, checked_candidates
from bmpq_tf.placement import Plan

Layer = keras.layers.Layer
Selector = str | type | Callable[[Layer], bool]


class SkippedLayersWarning(UserWarning):
    """Layers with kernels that stay float because no quantized twin is registered for them."""


def quantize_model(
    model: keras.Model,
    candidate_bits: Iterable[int] = (2, 4, 8),
    *,
    activation_bits: int | None = None,
    layers: Selector | Iterable[Selector] | None = None,
    exclude: Selector | Iterable[Selector] | None = None,
    pin: str | Selector | Iterable[Selector] | None = ("first", "last"),
    pinned_bits: int = 8,
    scale: str = "learned",
    granularity: str = "channel",
    track_sensitivity: bool = True,
) -> keras.Model:
    """Returns a copy of the model whose kernels are quantized while it trains, with the same weights.

    Args:
        model: a built functional or sequential model; nested models and shared layers are kept as such.
        candidate_bits: widths that the allocation may choose from, integers from 2 to 8. Training starts at the widest.
        activation_bits: 8, 4 or 2 rounds activations too: the output of every ReLU with PACT, and the input of every quantized layer
            that reads anything else (a linear bottleneck, swish, a mean) with a signed quantizer. What comes from the model's
            inputs alone is rounded at 8 bits; the model's outputs stay float. `None` leaves activations float.
        layers: which layers to quantize, ReLUs too, by name, class or predicate, one or several; all that are known by default.
        exclude: which of those to leave float; their kernels count 32 bits a weight against a budget.
        pin: layers held at `pinned_bits`: `"first"` (a path from an input meets no weighted layer before it), `"last"`
            (likewise towards an output), names, classes or predicates; `None` pins nothing.
        pinned_bits: the width of pinned layers.
        scale: `"learned"` (LSQ), `"statistical"` or `"max_abs"`.
        granularity: one scale per output `"channel"`, or one per `"tensor"`.
        track_sensitivity: whether training accumulates bit gradients; `BMPQCallback` needs them.

    Returns:
        A new, uncompiled model of the same kind, layer names and weights.

    Raises:
        TypeError: the model is subclassed, so its layers cannot be replaced from outside.
        ValueError: it is not built, is quantized already, an argument is not understood, or nothing would be quantized.

    Warns:
        SkippedLayersWarning: once, with a list, if layers with kernels stay float because they are not known.
    """
    _check_model(model)
    if graph.quantized_layers(model):
        raise ValueError(f"Model '{model.name}' has quantized layers already. Use it as it is, or dequantize_model(model) first.")
    candidates = checked_candidates(candidate_bits)
    (pinned_width,) = checked_candidates(pinned_bits)
    leaves = graph.leaf_layers(model)
    chosen = _matcher(layers, leaves, "layers") if layers is not None else lambda layer: True
    named = _matcher(exclude, leaves, "exclude")
    left_out = {id(part) for layer in leaves if named(layer) for part in layer._flatten_layers()}
    pinned = _pin_matcher(model, pin, leaves)

    def wanted(layer: Layer) -> bool:
        return chosen(layer) and id(layer) not in left_out

    plan = Plan(model, checked_activation_bits(activation_bits), wanted, lambda layer: entry_for(layer) is not None)
    replaced: set[int] = set()

    def twin(layer: Layer) -> Layer | None:
        entry = entry_for(layer)
        if entry is None or not wanted(layer):
            return plan.relu(layer)
        replaced.add(id(layer))
        is_pinned = pinned(layer)
        config = QuantizerConfig(
            candidate_bits=(pinned_width,) if is_pinned else candidates,
            pinned=is_pinned,
            scale=scale,
            granularity=granularity,
            track_sensitivity=track_sensitivity,
            **plan.bits(layer),
        )
        return entry.quantized_class.from_config({**layer.get_config(), "quantizer": config.to_dict()})

    quantized = _clone(model, twin)
    if not replaced:
        known = sorted({type(layer).__name__ for layer in leaves if layer.weights})
        raise ValueError(
            f"No layer of model '{model.name}' would be quantized. Received: layers={layers!r}, exclude={exclude!r}. "
            f"Its layers with weights are of the classes {', '.join(known) or '(none)'}."
        )
    # A known layer inside an unknown one stays float too, since only whole layers are replaced.
    skipped = [layer for layer in leaves if graph.kernel_variables(layer) and chosen(layer) and id(layer) not in replaced | left_out]
    if skipped:
        listed = ", ".join(f"'{layer.name}' ({type(layer).__name__})" for layer in skipped)
        warnings.warn(
            f"These layers stay float and count 32 bits a weight, because bmpq_tf has no quantized twin for them or for what holds them: {listed}. "
            "Name them in exclude= to silence this.",
            SkippedLayersWarning,
            stacklevel=2,
        )
    return quantized


def dequantize_model(model: keras.Model) -> keras.Model:
    """Returns a copy of plain Keras layers whose kernels lie on the quantized model's grid; it needs no bmpq_tf to load.

    Activations are float in it: no Keras layer rounds them, so where the model does, the copy answers a little differently.

    Raises:
        TypeError, ValueError: as `quantize_model`; also a model without quantized layers.
    """
    _check_model(model)
    if not graph.quantized_layers(model):
        raise ValueError(f"Model '{model.name}' has no quantized layers. Make them with bmpq_tf.quantize_model(model).")

    def twin(layer: Layer) -> Layer | None:
        if isinstance(layer, (QuantReLU, QuantIdentity)):
            float_class = keras.layers.ReLU if isinstance(layer, QuantReLU) else keras.layers.Identity
            return float_class.from_config({key: value for key, value in layer.get_config().items() if key != "bits"})
        entry = quantized_entry_for(layer)
        if entry is None:
            return None
        config = {key: value for key, value in layer.get_config().items() if key != "quantizer"}
        return entry.float_class.from_config(config)

    return _clone(model, twin)


def frozen_model(model: keras.Model) -> keras.Model:
    """Returns a copy for conversion: its kernels are constants on their grid, its activations are rounded in fixed ranges.

    Raises:
        TypeError, ValueError: as `dequantize_model`; also an activation quantizer that has no range yet.
    """
    _check_model(model)
    if not graph.quantized_layers(model):
        raise ValueError(f"Model '{model.name}' has no quantized layers. Make them with bmpq_tf.quantize_model(model).")
    copy = _clone(model, lambda layer: None)
    for part in copy._flatten_layers():
        if isinstance(part, (QuantizedLayer, ActivationQuantizer)):
            part.freeze()
    return copy


def _clone(model: keras.Model, twin: Callable[[Layer], Layer | None]) -> keras.Model:
    """Clones a model, each layer as its twin where it has one, and copies the weights."""
    pairs: list[tuple[Layer, Layer]] = []

    def replace(layer: Layer) -> Layer:
        clone = twin(layer) or type(layer).from_config(layer.get_config())
        pairs.append((layer, clone))
        return clone

    copy = keras.models.clone_model(model, clone_function=replace, recursive=True)
    for layer, clone in pairs:
        _copy_weights(layer, clone)
    return copy


def _copy_weights(source: Layer, target: Layer) -> None:
    """Copies in the layers' own order: paths depend on where a layer was built, the order does not."""
    if type(source) is type(target):
        for value, variable in zip(source.weights, target.weights, strict=True):
            variable.assign(value)
        return
    for value, variable in zip(_own_weights(source), _own_weights(target), strict=True):
        variable.assign(value)
    if isinstance(source, QuantizedLayer):
        # What reads as `kernel` is on the grid; the variable behind it is the latent float weight.
        for (kernel, quantizer), name in zip(source.kernels(), source.kernel_channel_axes, strict=True):
            getattr(target, name).assign(quantizer.call(kernel.value))
    if isinstance(target, QuantizedLayer):
        for kernel, quantizer in target.kernels():
            quantizer.initialise_scale(kernel)


def _own_weights(layer: Layer) -> list[keras.Variable]:
    """A layer's weights, without the state of quantizers."""
    quantizers = [part for part in layer._flatten_layers() if isinstance(part, (KernelQuantizer, ActivationQuantizer))]
    state = {id(variable) for quantizer in quantizers for variable in quantizer.weights}
    return [variable for variable in layer.weights if id(variable) not in state]


def _check_model(model) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"Expected a Keras 3 model. Received: model={model!r} (of type {type(model)}).")
    if not isinstance(model, keras.Sequential) and not graph.is_graph(model):
        raise TypeError(
            f"Model '{model.name}' is a subclass of keras.Model ({type(model).__name__}), whose layers cannot be replaced from "
            "outside. Build it from the quantized layers instead, such as bmpq_tf.layers.QuantConv2D(32, 3, "
            "quantizer={'candidate_bits': (2, 4, 8)}) in place of keras.layers.Conv2D(32, 3); BMPQCallback finds them."
        )
    if not model.built:
        raise ValueError(f"Model '{model.name}' is not built, so its kernels have no shape yet. Give it an Input or call build().")


def _pin_matcher(model, pin, leaves) -> Callable[[Layer], bool]:
    selectors = _as_list(pin)
    ends: list[Layer] = []
    if "first" in selectors or "last" in selectors:
        first, last = graph.first_and_last(model, lambda layer: bool(entry_for(layer) or _weighted(layer)))
        ends = [*(first if "first" in selectors else ()), *(last if "last" in selectors else ())]
    end_ids = {id(part) for layer in ends for part in layer._flatten_layers()}
    named = _matcher([s for s in selectors if s not in ("first", "last")], leaves, "pin")
    return lambda layer: id(layer) in end_ids or named(layer)


def _weighted(layer) -> bool:
    return isinstance(layer, Layer) and any(graph.kernel_variables(part) for part in layer._flatten_layers())


def _as_list(selectors) -> list:
    if selectors is None:
        return []
    if isinstance(selectors, (str, type)) or callable(selectors):
        return [selectors]
    return list(selectors)


def _matcher(selectors, leaves: list[Layer], argument: str) -> Callable[[Layer], bool]:
    """Turns names, classes and predicates into one predicate; a name that no layer has is an error."""
    listed = _as_list(selectors)
    names = {layer.name for layer in leaves}
    for selector in listed:
        if isinstance(selector, str) and selector not in names:
            raise ValueError(f"No layer is called {selector!r}. Received: {argument}={selectors!r}. Layers: {', '.join(sorted(names))}.")
        if not isinstance(selector, str) and not callable(selector):
            raise ValueError(f"{argument} takes layer names, classes and predicates. Received: {selector!r} in {argument}={selectors!r}.")

    def matches(layer: Layer) -> bool:
        for selector in listed:
            if isinstance(selector, str):
                hit = layer.name == selector
            elif isinstance(selector, type):
                hit = isinstance(layer, selector)
            else:
                hit = bool(selector(layer))
            if hit:
                return True
        return False

    return matches
