"""From a float Keras model to a quantized one and back, by cloning: the models handed in stay as they are."""

import warnings
from collections.abc import Iterable, Mapping

import keras

from bmpq_tf.conversion.activation_placement import ActivationPlacement
from bmpq_tf.conversion.cloning import check_class, clone
from bmpq_tf.conversion.eligibility import check_not_quantized_by_keras, find_obstacles
from bmpq_tf.conversion.selectors import Layer, Selector, as_list, covered
from bmpq_tf.layers import ActivationQuantizer, QuantIdentity, QuantizedLayer, QuantizerConfig, QuantReLU, entry_for, quantized_entry_for
from bmpq_tf.layers.config import checked_activation_bits, checked_candidates
from bmpq_tf.model import keras_graph

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
    granularity: str = "tensor",
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
            Here and below, a layer that holds others (attention, recurrent layers, `TimeDistributed`) stands for those inside too, and so
            does a nested model that is given by its name or class, or itself; predicates are asked of layers only.
        exclude: which of those to leave float; their kernels count 32 bits a weight against a budget.
        pin: layers held at `pinned_bits`: `"first"` (a path from an input meets no weighted layer before it), `"last"`
            (likewise towards an output), or selectors as in `layers`; `None` pins nothing.
        pinned_bits: the width of pinned layers.
        overrides: other candidates for some layers, by such selectors: `{"head": (4, 8), keras.layers.Embedding: 8}`.
            A later one wins over an earlier one, and any of them over `pin`.
        scale: `"learned"` (LSQ), `"statistical"` or `"max_abs"`.
        granularity: one learned scale per `"tensor"`, which trained better from scratch, or one per output `"channel"`
            (docs/experiments.md, "A scale for each tensor"). Files store one a channel either way.
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
    if keras_graph.quantized_layers(model):
        raise ValueError(f"Model '{model.name}' has quantized layers already. Use it as it is, or dequantize_model(model) first.")
    check_not_quantized_by_keras(model)
    candidates = checked_candidates(candidate_bits)
    pinned_width, *more = checked_candidates(pinned_bits, "pinned layers")
    if more:
        raise ValueError(f"pinned_bits is one width, from 2 to 8. Received: pinned_bits={pinned_bits!r}. Give candidates in overrides=.")
    parts = keras_graph.sublayers(model)
    chosen = covered(layers, parts, "layers") if layers is not None else {id(layer) for layer in parts}
    left_out = covered(exclude, parts, "exclude")
    pinned = _pinned(model, pin, parts)
    own_candidates = _own_candidates(overrides, parts)
    obstacles = find_obstacles(model)

    def wanted(layer: Layer) -> bool:
        return id(layer) in chosen and id(layer) not in left_out

    def quantizable(layer: Layer) -> bool:
        """Whether kernels of this very layer will be quantized."""
        entry = entry_for(layer)
        return entry is not None and not entry.is_composite and wanted(layer) and id(layer) not in obstacles

    plan = ActivationPlacement(model, checked_activation_bits(activation_bits), wanted, quantizable)

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

    configs = {id(layer): config(layer) for layer in parts if quantizable(layer)}
    skipped = [layer for layer in parts if keras_graph.kernel_variables(layer) and id(layer) in chosen and id(layer) not in {*configs, *left_out}]
    reasons = "".join(f"\n- '{layer.name}' ({type(layer).__name__}): {obstacles[id(layer)]}" for layer in skipped)
    _check_overrides(overrides, parts, configs, reasons)
    if not configs:
        known = sorted({type(layer).__name__ for layer in parts if layer.weights and not keras_graph.is_graph(layer)})
        raise ValueError(
            f"No layer of model '{model.name}' would be quantized. Received: layers={layers!r}, exclude={exclude!r}. "
            f"Its layers with weights are of the classes {', '.join(known) or '(none)'}. {reasons}"
        )

    def twin(layer: Layer, config: dict) -> Layer | None:
        quantizer = _quantizer_argument(layer, configs)
        return plan.relu(layer) if quantizer is None else entry_for(layer).quantized_class.from_config({**config, "quantizer": quantizer})

    quantized = clone(model, twin)
    check_class(model, quantized, _TRAINING)
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

    return clone(model, twin, on_grid)


def float32_model(model: keras.Model) -> keras.Model:
    """Returns the model, or, where it was trained in 16 bits (`mixed_float16`, `mixed_bfloat16`), a copy that computes in float32 as files do.

    Raises:
        TypeError, ValueError: as `dequantize_model`.
    """
    _check_quantized(model)
    mixed = any(layer.compute_dtype != layer.variable_dtype for layer in model._flatten_layers())
    return clone(model, lambda layer, config: None, in_variable_dtype=True) if mixed else model


def frozen_model(model: keras.Model) -> keras.Model:
    """Returns a copy for conversion: its kernels are constants on their grid, its activations are rounded in fixed ranges.

    Raises:
        TypeError, ValueError: as `dequantize_model`; also an activation quantizer that has no range yet.
    """
    _check_quantized(model)
    copy = clone(model, lambda layer, config: None)
    for part in copy._flatten_layers():
        if isinstance(part, (QuantizedLayer, ActivationQuantizer)):
            part.freeze()
    return copy


def _quantizer_argument(layer: Layer, configs: dict[int, QuantizerConfig]) -> dict | None:
    """Returns the `quantizer` of a layer's twin, for a composite with those of the layers inside; `None` where nothing is quantized."""
    entry = entry_for(layer)
    if entry is None or not entry.is_composite:
        return configs[id(layer)].to_dict() if id(layer) in configs else None
    if not any(id(part) in configs for part in keras_graph.sublayers(layer)):
        return None
    return {"sublayers": {part.name: _quantizer_argument(part, configs) for part in layer._layers if entry_for(part)}}


def _check_model(model) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"Expected a Keras 3 model. Received: model={model!r} (of type {type(model)}).")
    if not isinstance(model, keras.Sequential) and not keras_graph.is_graph(model):
        raise TypeError(
            f"Model '{model.name}' is a subclass of keras.Model ({type(model).__name__}), whose layers cannot be replaced from "
            "outside. Build it from the quantized layers instead, such as bmpq_tf.layers.QuantConv2D(32, 3, "
            "quantizer={'candidate_bits': (2, 4, 8)}) in place of keras.layers.Conv2D(32, 3); BMPQCallback finds them."
        )
    if not model.built:
        raise ValueError(f"Model '{model.name}' is not built, so its kernels have no shape yet. Give it an Input or call build().")


def _check_quantized(model) -> None:
    _check_model(model)
    if not keras_graph.quantized_layers(model):
        raise ValueError(f"Model '{model.name}' has no quantized layers. Make them with bmpq_tf.quantize_model(model).")


def _pinned(model, pin, parts) -> set[int]:
    selectors = as_list(pin)
    named = covered([selector for selector in selectors if selector not in ("first", "last")], parts, "pin")
    if "first" in selectors or "last" in selectors:
        first, last = keras_graph.first_and_last(model, _weighted)
        ends = [*(first if "first" in selectors else ()), *(last if "last" in selectors else ())]
        named |= {id(part) for layer in ends for part in [layer, *keras_graph.sublayers(layer)]}
    return named


def _weighted(layer) -> bool:
    return isinstance(layer, Layer) and any(keras_graph.kernel_variables(part) for part in [layer, *keras_graph.sublayers(layer)])


def _own_candidates(overrides, parts) -> dict[int, tuple[int, ...]]:
    if overrides is not None and not isinstance(overrides, Mapping):
        raise ValueError(f"overrides maps names, classes or layers to widths, such as {{'head': (4, 8)}}. Received: overrides={overrides!r}.")
    found = {}
    for selector, bits in (overrides or {}).items():
        widths = checked_candidates(bits, str(selector))
        found.update(dict.fromkeys(covered(selector, parts, "overrides"), widths))
    return found


def _check_overrides(overrides, parts: list[Layer], configs: dict[int, QuantizerConfig], reasons: str) -> None:
    """Raises ValueError for widths that the file could not hold, of a layer that stays float."""
    for selector in overrides or ():
        if not covered(selector, parts, "overrides") & set(configs):
            raise ValueError(
                f"overrides gives widths to layers that stay float, so neither training nor the exported file could hold them. "
                f"Received: overrides={{{selector!r}: {overrides[selector]!r}}}.{reasons or ' None of them is known and chosen.'}"
            )
