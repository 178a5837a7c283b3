"""From a float Keras model to a quantized one.

By cloning, where the model handed in stays as it is, or in place, where its class says what it is.
"""

import dataclasses
import warnings
from collections.abc import Iterable, Mapping

import keras

from bmpq_tf._compat.keras import forget_compilation
from bmpq_tf.conversion import model_attributes
from bmpq_tf.conversion.beyond_copies import check_reads, check_traced
from bmpq_tf.conversion.cloning import check_class, clone
from bmpq_tf.conversion.config import QuantizationConfig
from bmpq_tf.conversion.eligibility import check_not_quantized_by_keras
from bmpq_tf.conversion.plan import QuantizationPlan
from bmpq_tf.conversion.selectors import Selector
from bmpq_tf.conversion.supported_models import check_model
from bmpq_tf.layers.in_place import mark
from bmpq_tf.model import keras_graph

_STEPS = ("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics")


class SkippedLayersWarning(UserWarning):
    """Layers with kernels that stay float, because the registry does not know them or quantizing
    them would break something.

    Example:
        >>> import warnings
        >>> float_model.get_layer("head").enable_lora(rank=2)
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     model = bmpq_tf.quantize_model(float_model)
        >>> print(caught[-1].message)
        These layers stay float and count 32 bits a weight. ... LoRA is enabled...
    """


def quantize_model(
    model: keras.Model,
    candidate_bits: Iterable[int] | None = None,
    *,
    activation_bits: int | None = None,
    config: QuantizationConfig | None = None,
    layers: Selector | Iterable[Selector] | None = None,
    exclude: Selector | Iterable[Selector] | None = None,
    pin: str | Selector | Iterable[Selector] | None = "auto",
    overrides: Mapping[Selector, int | Iterable[int]] | None = None,
) -> keras.Model:
    """Returns a copy of the model whose kernels are quantized while it trains, with the same
    weights; a subclassed model itself, quantized in place.

    A subclass of `keras.Model` cannot be copied, so its layers become their quantized twins where
    they stand, as Keras's own `quantize()` does it, and it must be compiled anew. What stands
    inside layers of your own classes is quantized too. `BatchNormalization` becomes
    `layers.FusedBatchNormalization`: the same answers, a faster training step.

    Args:
        model: any Keras model; nested models and shared layers are kept as such. A sequential one
            must be built; for a subclassed one that is not, `"auto"` pins nothing and warns, and
            other words in `pin` and `activation_bits` are refused.
        candidate_bits: widths that the allocation may choose from, integers from 2 to 8. Training
            starts at the widest. `(2, 4, 8)` by default.
        activation_bits: 16, 8, 4 or 2 rounds activations too: the output of every ReLU with PACT,
            and the input of every quantized layer that reads anything else (a linear bottleneck,
            swish, a mean) with a signed quantizer. What comes from the model's inputs alone is
            rounded at 8 bits, or 16; the model's outputs stay float, and so does what recurrent
            cells read. At 16 bits ranges are symmetric, as LiteRT's 16x8 has them. `None` leaves
            activations float.
        config: everything else that a quantizer can be told, and these two where they are not
            given.
        layers: which layers to quantize, ReLUs too: names, classes, predicates or layers, one or
            several; all that are known by default. Here and below, a layer that holds others
            (attention, recurrent layers, `TimeDistributed`) stands for those inside too, and so
            does a nested model that is given by its name or class, or itself; predicates are asked
            of layers only.
        exclude: which of those to leave float; their kernels count 32 bits a weight against a
            budget.
        pin: layers held at `config.pinned_bits`: `"first"` (a path from an input meets no weighted
            layer before it), `"last"` (likewise towards an output), `"ends"` (both), or selectors
            as in `layers`; `None` pins nothing. `"auto"` pins ends that together have at most a
            twentieth of the model's weights; larger ones, the largest first, get those candidates
            that are 4 bits or more.
        overrides: other candidates for some layers, by such selectors:
            `{"head": (4, 8), keras.layers.Embedding: 8}`. A later one wins over an earlier one, and
            any of them over `pin`.

    Returns:
        A new, uncompiled model of the same kind, layer names and weights; of a subclassed model the
        model itself, uncompiled.

    Raises:
        TypeError: a functional model has a `call` or `train_step` of its own, and a constructor
            that Keras does not copy models with; or a layer of your own cannot be copied.
        ValueError: it is not built, its graph is asked for and cannot be followed, is quantized
            already (by us or by Keras), has a `call` that is a `tf.function`, or an operation that
            reads a layer's weight itself; an argument is not understood, an override is for layers
            that stay float, or nothing would be quantized.

    Warns:
        SkippedLayersWarning: once, if layers with kernels stay float; it lists each with the
            reason.

    Example:
        >>> model = bmpq_tf.quantize_model(float_model, (2, 4, 8), pin="first")
        >>> [(row.path, row.candidates) for row in bmpq_tf.kernel_table(model)]
        [('conv/kernel', (8,)), ('head/kernel', (2, 4, 8))]

        By default the head, which has 98 % of this model's weights, is not pinned either:

        >>> model = bmpq_tf.quantize_model(float_model, (2, 4, 8))
        >>> [(row.path, row.candidates, row.end) for row in bmpq_tf.kernel_table(model)]
        [('conv/kernel', (8,), 'small'), ('head/kernel', (4, 8), 'large')]
    """
    check_model(model)
    if keras_graph.quantized_layers(model):
        raise ValueError(
            f"Model '{model.name}' has quantized layers already. Use it as it is, or "
            "dequantize_model(model) first."
        )
    check_not_quantized_by_keras(model)
    check_traced(model)
    if keras_graph.is_graph(model):
        check_reads(model)
    config = _config(config, candidate_bits, activation_bits)
    plan = QuantizationPlan(model, config, layers, exclude, pin, overrides)
    if keras_graph.is_graph(model):
        quantized = clone(model, plan.twin, inside=plan.quantize_inside)
        check_class(model, quantized, _STEPS)
        model_attributes.warn_of_lost(model, quantized)
    else:
        quantized = model
        plan.quantize_inside(model, model)
        forget_compilation(model)
    mark(quantized)
    if plan.unpinned:
        told = (
            f'pin="auto" pins nothing, since the ends of the model cannot be seen. {plan.unpinned}'
        )
        warnings.warn(f"{told} Say pin=None, or name layers, to silence this.", stacklevel=2)
    if plan.skipped:
        # The model itself cannot be left out.
        way = "" if plan.skipped == [model] else " Name them in exclude= to silence this."
        told = f"These layers stay float and count 32 bits a weight.{way}{plan.reasons}"
        warnings.warn(told, SkippedLayersWarning, stacklevel=2)
    return quantized


def _config(
    config: QuantizationConfig | None, candidate_bits, activation_bits
) -> QuantizationConfig:
    """What is said directly wins over the config."""
    if config is not None and not isinstance(config, QuantizationConfig):
        raise TypeError(
            f"config is a bmpq_tf.QuantizationConfig. Received: config={config!r} (of type "
            f"{type(config)})."
        )
    said = {"candidate_bits": candidate_bits, "activation_bits": activation_bits}
    return dataclasses.replace(
        config or QuantizationConfig(),
        **{name: value for name, value in said.items() if value is not None},
    )
