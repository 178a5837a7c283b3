"""From a float Keras model to a quantized one and back, by cloning: the models handed in stay as they are."""

import contextlib
import inspect
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping

import keras
import numpy as np

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
from bmpq_tf.obstacles import check_not_quantized_by_keras, find_obstacles
from bmpq_tf.placement import Plan
from bmpq_tf.selectors import Layer, Selector, as_list, covered

_STATE = (KernelQuantizer, ActivationQuantizer)
_TRAINING = ("train_step", "test_step", "compute_loss", "compute_metrics")


class SkippedLayersWarning(UserWarning):
    """Layers with kernels that stay float, because the registry does not know them or quantizing them would break something."""


def quantize_model(
    model: keras.Model,
    candidate_bits: Iterable[int] = (2, 4, 8),
    *,
    activation_bits: int | None = None,
    layers: Selector | Iterable[Selector] | None = None,
    exclude: Selector | Iterable[Selector] | None = None,
    pin: str | Selector | Iterable[Selector] | None = ("first", "last"),
    pinned_bits: int = 8,
    overrides: Mapping[Selector, int | Iterable[int]] | None = None,
    scale: str = "learned",
    granularity: str = "channel",
    track_sensitivity: bool | str = True,
    initial_scale: str = "statistical",
    normalise_kernels: bool = False,
    track_oscillations: bool = False,
) -> keras.Model:
    """Returns a copy of the model whose kernels are quantized while it trains, with the same weights.

    Args:
        model: a built functional or sequential model; nested models and shared layers are kept as such.
        candidate_bits: widths that the allocation may choose from, integers from 2 to 8. Training starts at the widest.
        activation_bits: 8, 4 or 2 rounds activations too: the output of every ReLU with PACT, and the input of every quantized layer
            that reads anything else (a linear bottleneck, swish, a mean) with a signed quantizer. What comes from the model's
            inputs alone is rounded at 8 bits; the model's outputs stay float, and so does what recurrent cells read. `None` leaves
            activations float.
        layers: which layers to quantize, ReLUs too: names, classes, predicates or layers, one or several; all that are known by default.
            Here and below, a layer that holds others (attention, recurrent layers, `TimeDistributed`) stands for those inside too.
        exclude: which of those to leave float; their kernels count 32 bits a weight against a budget.
        pin: layers held at `pinned_bits`: `"first"` (a path from an input meets no weighted layer before it), `"last"`
            (likewise towards an output), or selectors as in `layers`; `None` pins nothing.
        pinned_bits: the width of pinned layers.
        overrides: other candidates for some layers, by such selectors: `{"head": (4, 8), keras.layers.Embedding: 8}`.
            A later one wins over an earlier one, and any of them over `pin`.
        scale: `"learned"` (LSQ), `"statistical"` or `"max_abs"`.
        granularity: one scale per output `"channel"`, or one per `"tensor"`.
        track_sensitivity: whether training accumulates bit gradients; `BMPQCallback` needs them, and `"joint"` for its joint objective.
        initial_scale: where learned scales start whenever the width changes: `"statistical"`, or `"mse"`, the smallest squared error.
        normalise_kernels: quantize every kernel at mean zero and deviation one per channel; for training from scratch, since the means are lost.
        track_oscillations: watch for weights that keep jumping between two integers, which `FreezeOscillations` then holds.

    Returns:
        A new, uncompiled model of the same kind, layer names and weights.

    Raises:
        TypeError: the model is subclassed, so its layers cannot be replaced from outside; or it has a `call` or `train_step` of its own, and a
            constructor that Keras does not copy models with.
        ValueError: it is not built, is quantized already (by us or by Keras), an argument is not understood, an override is for
            layers that stay float, or nothing would be quantized.

    Warns:
        SkippedLayersWarning: once, if layers with kernels stay float; it lists each with the reason.
    """
    _check_model(model)
    if graph.quantized_layers(model):
        raise ValueError(f"Model '{model.name}' has quantized layers already. Use it as it is, or dequantize_model(model) first.")
    check_not_quantized_by_keras(model)
    candidates = checked_candidates(candidate_bits)
    (pinned_width,) = checked_candidates(pinned_bits)
    leaves = graph.leaf_layers(model)
    chosen = covered(layers, leaves, "layers") if layers is not None else {id(layer) for layer in leaves}
    left_out = covered(exclude, leaves, "exclude")
    pinned = _pinned(model, pin, leaves)
    own_candidates = _own_candidates(overrides, leaves)
    obstacles = find_obstacles(model)

    def wanted(layer: Layer) -> bool:
        return id(layer) in chosen and id(layer) not in left_out

    def quantizable(layer: Layer) -> bool:
        """Whether kernels of this very layer will be quantized."""
        entry = entry_for(layer)
        return entry is not None and not entry.is_composite and wanted(layer) and id(layer) not in obstacles

    plan = Plan(model, checked_activation_bits(activation_bits), wanted, quantizable)

    def config(layer: Layer) -> QuantizerConfig:
        overridden = own_candidates.get(id(layer))
        is_pinned = id(layer) in pinned and overridden is None
        return QuantizerConfig(
            candidate_bits=overridden or ((pinned_width,) if is_pinned else candidates),
            pinned=is_pinned,
            scale=scale,
            granularity=granularity,
            track_sensitivity=track_sensitivity,
            initial_scale=initial_scale,
            normalise_kernels=normalise_kernels,
            track_oscillations=track_oscillations,
            **plan.bits(layer),
        )

    configs = {id(layer): config(layer) for layer in leaves if quantizable(layer)}
    skipped = [layer for layer in leaves if graph.kernel_variables(layer) and id(layer) in chosen and id(layer) not in {*configs, *left_out}]
    reasons = "".join(f"\n- '{layer.name}' ({type(layer).__name__}): {obstacles[id(layer)]}" for layer in skipped)
    _check_overrides(overrides, leaves, configs, reasons)
    if not configs:
        known = sorted({type(layer).__name__ for layer in leaves if layer.weights})
        raise ValueError(
            f"No layer of model '{model.name}' would be quantized. Received: layers={layers!r}, exclude={exclude!r}. "
            f"Its layers with weights are of the classes {', '.join(known) or '(none)'}. {reasons}"
        )

    def twin(layer: Layer, config: dict) -> Layer | None:
        quantizer = _quantizer_argument(layer, configs)
        return plan.relu(layer) if quantizer is None else entry_for(layer).quantized_class.from_config({**config, "quantizer": quantizer})

    quantized = _clone(model, twin)
    _check_class(model, quantized, _TRAINING)
    if skipped:
        warnings.warn(
            f"These layers stay float and count 32 bits a weight. Name them in exclude= to silence this.{reasons}", SkippedLayersWarning, stacklevel=2
        )
    return quantized


def dequantize_model(model: keras.Model, *, on_grid: bool = True) -> keras.Model:
    """Returns a copy of plain Keras layers whose kernels lie on the quantized model's grid; they need no bmpq_tf to load.

    Activations are float in it: no Keras layer rounds them, so where the model does, the copy answers a little differently.

    Args:
        model: from `quantize_model`, or built from quantized layers.
        on_grid: `False` copies the latent float kernels that training moved, unrounded, for another quantizer to round in its own way.
            The model was not trained to answer with those.

    Raises:
        TypeError, ValueError: as `quantize_model`; also a model without quantized layers.
    """
    _check_quantized(model)

    def twin(layer: Layer, config: dict) -> Layer | None:
        if isinstance(layer, (QuantReLU, QuantIdentity)):
            float_class = keras.layers.ReLU if isinstance(layer, QuantReLU) else keras.layers.Identity
            return float_class.from_config({key: value for key, value in config.items() if key != "bits"})
        entry = quantized_entry_for(layer)
        if entry is not None:
            return entry.float_class.from_config({key: value for key, value in config.items() if key != "quantizer"})
        # A class of ours that only computes in another way than its parent.
        ours = type(layer).__module__.startswith("bmpq_tf.")
        return next(base for base in type(layer).__mro__ if base.__module__.startswith("keras.")).from_config(config) if ours else None

    return _clone(model, twin, on_grid)


def float32_model(model: keras.Model) -> keras.Model:
    """Returns the model, or, where it was trained in 16 bits (`mixed_float16`, `mixed_bfloat16`), a copy that computes in float32 as files do.

    Raises:
        TypeError, ValueError: as `dequantize_model`.
    """
    _check_quantized(model)
    mixed = any(layer.compute_dtype != layer.variable_dtype for layer in model._flatten_layers())
    return _clone(model, lambda layer, config: None, in_variable_dtype=True) if mixed else model


def frozen_model(model: keras.Model) -> keras.Model:
    """Returns a copy for conversion: its kernels are constants on their grid, its activations are rounded in fixed ranges.

    Raises:
        TypeError, ValueError: as `dequantize_model`; also an activation quantizer that has no range yet.
    """
    _check_quantized(model)
    copy = _clone(model, lambda layer, config: None)
    for part in copy._flatten_layers():
        if isinstance(part, (QuantizedLayer, ActivationQuantizer)):
            part.freeze()
    return copy


def _quantizer_argument(layer: Layer, configs: dict[int, QuantizerConfig]) -> dict | None:
    """Returns the `quantizer` of a layer's twin, for a composite with those of the layers inside; `None` where nothing is quantized."""
    entry = entry_for(layer)
    if entry is None or not entry.is_composite:
        return configs[id(layer)].to_dict() if id(layer) in configs else None
    if not any(id(part) in configs for part in graph.sublayers(layer)):
        return None
    return {"sublayers": {part.name: _quantizer_argument(part, configs) for part in layer._layers if entry_for(part)}}


def _clone(model: keras.Model, twin: Callable[[Layer, dict], Layer | None], on_grid: bool = True, in_variable_dtype: bool = False) -> keras.Model:
    """Clones a model and copies the weights. `twin` makes a layer's copy from its config, or returns `None` for a copy of its class.

    Where a quantized layer's copy is a float one, it has the kernel as it reads, or, not `on_grid`, the latent one. Copies compute in the
    precision of the originals, or `in_variable_dtype`.
    """
    pairs: list[tuple[Layer, Layer]] = []

    def rebuilt(layer: Layer) -> Layer:
        if graph.is_graph(layer):
            return keras.models.clone_model(layer, clone_function=rebuilt, recursive=True)
        config = layer.get_config()
        if in_variable_dtype and isinstance(layer, Layer) and layer.compute_dtype != layer.variable_dtype:
            config["dtype"] = layer.variable_dtype
        entry = entry_for(layer) or quantized_entry_for(layer)
        for key, attribute in (entry.held if entry else {}).items():
            held = getattr(layer, attribute)
            serialize = keras.saving.serialize_keras_object
            config[key] = [serialize(rebuilt(part)) for part in held] if isinstance(held, (list, tuple)) else serialize(rebuilt(held))
        if type(layer) is keras.layers.Lambda:
            # A function that was read from a config has lost what it refers to.
            dtype = layer.variable_dtype if in_variable_dtype else layer.dtype_policy
            said = {"name": layer.name, "trainable": layer.trainable, "dtype": dtype}
            return keras.layers.Lambda(layer.function, layer._output_shape, layer.mask, layer.arguments, **said)
        return twin(layer, config) or type(layer).from_config(config)

    def replace(layer: Layer) -> Layer:
        clone = rebuilt(layer)
        # A slice or a sum of tensors is an operation of the model, and no layer.
        if isinstance(layer, Layer):
            pairs.append((layer, clone))
        return clone

    with _uncompiled(model), keras.saving.custom_object_scope(_own_functions(model)):
        copy = keras.models.clone_model(model, clone_function=replace, recursive=True)
    for nested, its_copy in zip(_models(model), _models(copy), strict=True):
        _check_class(nested, its_copy, ("call",))
        # As it reads, without what setting it does to the layers inside: each of them is told its own.
        its_copy._trainable = nested._trainable
    parts = [pair for layer, clone in pairs for pair in zip(_parts(layer), _parts(clone), strict=True)]
    for part, clone in parts:
        _copy_weights(part, clone, on_grid)
    _tie(parts)
    return copy


def _models(layer: Layer) -> list[keras.Model]:
    """The models in a layer, itself first, as often as they are held: a copy holds one for each."""
    return [layer] * isinstance(layer, keras.Model) + [model for part in layer._layers for model in _models(part)]


def _check_class(model: keras.Model, copy: keras.Model, methods: Iterable[str]) -> None:
    """Raises TypeError if Keras made the copy of a plainer class that lost one of these methods."""
    lost = [name for name in methods if getattr(type(model), name) is not getattr(type(copy), name)]
    if lost and type(copy) is not type(model):
        raise TypeError(
            f"Keras makes copies of model '{model.name}' as {type(copy).__name__}, which would lose the {', '.join(lost)} of its class. "
            f"Received: a {type(model).__name__}. Give that class the constructor (self, *args, **kwargs) of a functional model and make it "
            "with (inputs, outputs), or build it from the quantized layers, such as bmpq_tf.layers.QuantConv2D."
        )


def _own_functions(model: keras.Model) -> dict[str, Callable]:
    """Functions that layers hold, such as activations of the user's, by the names that their configs have for them."""
    found: dict[str, Callable] = {}
    for layer in graph.sublayers(model):
        # Keras wraps methods such as build for each layer.
        held = [value for name, value in vars(layer).items() if inspect.isfunction(value) and not hasattr(type(layer), name)]
        for function in held:
            if not function.__module__.startswith("keras.") and found.setdefault(function.__name__, function) is not function:
                raise ValueError(
                    f"Two functions of model '{model.name}' have one name, so a copy could not tell them apart. "
                    f"Received: {function.__name__!r}, also in layer '{layer.name}'. Give each a __name__ of its own."
                )
    return found


@contextlib.contextmanager
def _uncompiled(model: keras.Model) -> Iterator[None]:
    """Keeps Keras from compiling the copy, which needs every loss and metric to be registered, and which nobody asked for."""
    parts = [part for part in _models(model) if part.compiled]
    for part in parts:
        part.compiled = False
    try:
        yield
    finally:
        for part in parts:
            part.compiled = True


def _parts(layer: Layer) -> list[Layer]:
    """A layer and those inside it, without the quantizers, in an order that the twin has too."""
    return [part for part in [layer, *graph.sublayers(layer)] if not isinstance(part, _STATE)]


def _own_variables(layer: Layer) -> list[keras.Variable]:
    """Sorted by attribute, which a layer and its twin share but for a leading underscore; those in lists come last, in order."""
    attributes = {id(value): name.lstrip("_") for name, value in vars(layer).items() if isinstance(value, keras.Variable)}
    return sorted([*layer._trainable_variables, *layer._non_trainable_variables], key=lambda variable: attributes.get(id(variable), "~"))


def _copy_weights(source: Layer, target: Layer, on_grid: bool) -> None:
    """Copies a layer's own weights, without those of the layers inside."""
    values, variables = _own_variables(source), _own_variables(target)
    if len(values) != len(variables):
        raise ValueError(
            f"Layer '{source.name}' ({type(source).__name__}) cannot be copied: a layer made from its config has {len(variables)} weights. "
            f"Received: one with {len(values)} of its own. Weights that were added or replaced by hand are not in a config."
        )
    for value, variable in zip(values, variables, strict=True):
        variable.assign(value)
    if hasattr(source, "adapt"):
        _copy_adapted(source, target)
    # A config does not tell whether a layer inside was frozen.
    if target.trainable != source.trainable:
        target.trainable = source.trainable
    if type(source) is type(target):
        for mine, theirs in zip(_quantizers(source), _quantizers(target), strict=True):
            for value, variable in zip(mine.weights, theirs.weights, strict=True):
                variable.assign(value)
        return
    if isinstance(source, QuantizedLayer):
        # The variable behind a kernel is the latent float weight, which has means that are not rounded where kernels are normalised.
        for (kernel, quantizer), name in zip(source.kernels(), source.kernel_channel_axes, strict=True):
            getattr(target, name).assign((quantizer.call if on_grid else quantizer.quantized_from)(kernel.value))
    if isinstance(target, QuantizedLayer):
        for kernel, quantizer in target.kernels():
            quantizer.initialise_scale(kernel)


def _copy_adapted(source: Layer, target: Layer) -> None:
    """Copies what a preprocessing layer learned from data, as Keras's files do: some of it is no variable, or computed from them on loading."""
    store: dict[str, np.ndarray] = {}
    source.save_own_variables(store)
    target.load_own_variables(store)
    if hasattr(source, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            source.save_assets(folder)
            target.load_assets(folder)


def _quantizers(layer: Layer) -> list[Layer]:
    return [part for part in layer._layers if isinstance(part, _STATE)]


def _tie(parts: list[tuple[Layer, Layer]]) -> None:
    """Gives copies of layers that shared a variable one variable again: cloned one by one, each has its own."""
    copies: dict[int, keras.Variable] = {}
    for part, clone in parts:
        for source, copy in zip(_own_variables(part), _own_variables(clone), strict=True):
            kept = copies.setdefault(id(source), copy)
            for name in [name for name, value in vars(clone).items() if value is copy and kept is not copy]:
                clone._tracker.unlock()
                delattr(clone, name)
                setattr(clone, name, kept)
                clone._tracker.lock()


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


def _check_quantized(model) -> None:
    _check_model(model)
    if not graph.quantized_layers(model):
        raise ValueError(f"Model '{model.name}' has no quantized layers. Make them with bmpq_tf.quantize_model(model).")


def _pinned(model, pin, leaves) -> set[int]:
    selectors = as_list(pin)
    named = covered([selector for selector in selectors if selector not in ("first", "last")], leaves, "pin")
    if "first" in selectors or "last" in selectors:
        first, last = graph.first_and_last(model, _weighted)
        ends = [*(first if "first" in selectors else ()), *(last if "last" in selectors else ())]
        named |= {id(part) for layer in ends for part in [layer, *graph.sublayers(layer)]}
    return named


def _weighted(layer) -> bool:
    return isinstance(layer, Layer) and any(graph.kernel_variables(part) for part in [layer, *graph.sublayers(layer)])


def _own_candidates(overrides, leaves) -> dict[int, tuple[int, ...]]:
    if overrides is not None and not isinstance(overrides, Mapping):
        raise ValueError(f"overrides maps names, classes or layers to widths, such as {{'head': (4, 8)}}. Received: overrides={overrides!r}.")
    found = {}
    for selector, bits in (overrides or {}).items():
        widths = checked_candidates(bits, str(selector))
        found.update(dict.fromkeys(covered(selector, leaves, "overrides"), widths))
    return found


def _check_overrides(overrides, leaves: list[Layer], configs: dict[int, QuantizerConfig], reasons: str) -> None:
    """Raises ValueError for widths that the file could not hold, of a layer that stays float."""
    for selector in overrides or ():
        if not covered(selector, leaves, "overrides") & set(configs):
            raise ValueError(
                f"overrides gives widths to layers that stay float, so neither training nor the exported file could hold them. "
                f"Received: overrides={{{selector!r}: {overrides[selector]!r}}}.{reasons or ' None of them is known and chosen.'}"
            )
