"""Which layers of a float model become which quantized ones."""

from collections.abc import Mapping

import keras

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.conversion.activation_placement import ActivationPlacement
from bmpq_tf.conversion.config import QuantizationConfig
from bmpq_tf.conversion.eligibility import ineligible_layers
from bmpq_tf.conversion.pinning import WORDS, pinned_and_large
from bmpq_tf.conversion.selectors import Layer, as_list, covered
from bmpq_tf.layers import QuantizerConfig
from bmpq_tf.layers.config import checked_candidates
from bmpq_tf.layers.in_place import fuse_in_place, quantize_in_place, relu_in_place, renamed
from bmpq_tf.layers.normalization import FusedBatchNormalization, can_be_fused
from bmpq_tf.layers.registry import entry_for
from bmpq_tf.model import graph_view, keras_graph


class QuantizationPlan:
    """Which layers of a float model become which quantized ones.

    What the model is asked is asked once.

    Args:
        model: the float model.
        config, layers, exclude, pin, overrides: as `quantize_model` takes them.

    Attributes:
        configs: the config of each layer whose own kernels will be quantized, by the layer's `id`.
        skipped: layers with kernels that were chosen and stay float.
        reasons: why, in lines.
        unpinned: why `pin="auto"` cannot see the ends of the model; empty where it can.
    """

    def __init__(
        self, model: keras.Model, config: QuantizationConfig, layers, exclude, pin, overrides
    ):
        self.model, self.parts = model, keras_graph.sublayers(model)
        graph, self.unpinned = _graph_of(model, config, pin)
        self._chosen = (
            covered(layers, self.parts, "layers")
            if layers is not None
            else {id(layer) for layer in self.parts}
        )
        left_out = covered(exclude, self.parts, "exclude")
        self._wanted = self._chosen - left_out
        self._done: set[int] = set()
        self._reasons = ineligible_layers(model)
        own_candidates = _own_candidates(overrides, self.parts)
        pinned, ends = pinned_and_large(
            graph,
            pin,
            self.parts,
            lambda layer: self._is_quantizable(layer) and id(layer) not in own_candidates,
        )
        self.placement = ActivationPlacement(
            graph, config.activation_bits, self._is_wanted, self._is_quantizable
        )
        self.configs = {
            id(layer): config.of_layer(
                own_candidates.get(id(layer)),
                id(layer) in pinned,
                ends.get(id(layer)),
                self.placement.bits(layer),
            )
            for layer in self.parts
            if self._is_quantizable(layer) or self._is_made_later(layer)
        }
        settled = {*self.configs, *left_out}
        self.skipped = [
            layer
            for layer in [model, *self.parts]
            if (keras_graph.kernel_variables(layer) or self._is_lost_later(layer))
            and (id(layer) in self._chosen or (layer is model and layers is None))
            and id(layer) not in settled
        ]
        self.reasons = "".join(
            f"\n- '{layer.name}' ({type(layer).__name__}): {self._reasons[id(layer)]}"
            for layer in self.skipped
        )
        self._check(layers, exclude, overrides)

    def twin(self, layer: Layer, config: dict) -> Layer | None:
        """Returns a layer's quantized twin, made from its Keras config.

        `None` for a layer that stays as it is.
        """
        entry, quantizer = entry_for(layer), _quantizer_argument(layer, self.configs)
        if entry is None or quantizer is None:
            if can_be_fused(layer) and self._is_wanted(layer):
                return FusedBatchNormalization.from_config(config)
            return self.placement.relu(layer)
        return entry.quantized_class.from_config({**config, "quantizer": quantizer})

    def quantize_inside(self, layer: Layer, made: Layer) -> None:
        """Quantizes in place what is inside a layer or model of a class of the user's.

        Args:
            layer: of the float model.
            made: its copy, or the layer itself.
        """
        pairs = zip(
            list(keras_compat.layers_inside(layer)),
            list(keras_compat.layers_inside(made)),
            strict=True,
        )
        for part, its in pairs:
            if id(its) in self._done:
                continue
            self._done.add(id(its))
            if (quantizer := _quantizer_argument(part, self.configs)) is not None:
                quantize_in_place(its, renamed(its, quantizer))
            elif (relu := self.placement.relu(part)) is not None:
                relu_in_place(its, relu.activation_quantizer.bits, relu.max_value)
            elif can_be_fused(part) and self._is_wanted(part):
                fuse_in_place(its)
            else:
                self.quantize_inside(part, its)

    def _is_wanted(self, layer: Layer) -> bool:
        return id(layer) in self._wanted

    def _is_quantizable(self, layer: Layer) -> bool:
        """Whether kernels of this very layer will be quantized."""
        entry = entry_for(layer)
        return (
            entry is not None
            and not entry.is_composite
            and self._is_wanted(layer)
            and id(layer) not in self._reasons
        )

    def _is_made_later(self, layer: Layer) -> bool:
        """Whether this is a composite that makes its layers when it is built, as attention does,
        and is not: they are all quantized as the composite is told.
        """
        entry = entry_for(layer)
        return (
            entry is not None
            and entry.is_composite
            and not layer.built
            and not keras_compat.layers_inside(layer)
            and self._is_wanted(layer)
            and id(layer) not in self._reasons
        )

    def _is_lost_later(self, layer: Layer) -> bool:
        """Whether a layer that is not built will have kernels that stay float."""
        is_known = not layer.built and entry_for(layer) is not None
        return is_known and id(layer) in self._reasons and not keras_compat.layers_inside(layer)

    def _check(self, layers, exclude, overrides) -> None:
        _check_overrides(overrides, self.parts, self.configs, self.reasons)
        if not self.configs:
            known = sorted(
                {
                    type(layer).__name__
                    for layer in self.parts
                    if layer.weights and not keras_graph.is_graph(layer)
                }
            )
            raise ValueError(
                f"No layer of model '{self.model.name}' would be quantized. Received: "
                f"layers={layers!r}, exclude={exclude!r}. "
                f"Its layers with weights are of the classes {', '.join(known) or '(none)'}. "
                f"{self.reasons}"
            )


def _graph_of(
    model: keras.Model, config: QuantizationConfig, pin
) -> tuple[keras.Model | None, str]:
    """The model's graph, as far as something is to be read from it, and why `"auto"` cannot.

    Raises:
        ValueError: it is needed and cannot be seen.
    """
    if keras_graph.is_graph(model):
        return model, ""
    asked = [word for word in as_list(pin) if word in WORDS]
    if not asked and config.activation_bits is None:
        return None, ""
    try:
        return graph_view.followed(model), ""
    except graph_view.NotFollowedError as error:
        if asked == ["auto"] and config.activation_bits is None:
            return None, str(error)
        what = (
            f"activation_bits={config.activation_bits}"
            if config.activation_bits is not None
            else f"pin={pin!r}"
        )
        raise ValueError(
            f"{what} needs to know which layers are connected, and this cannot be seen. {error} "
            "Or quantize it with pin=None, or with the names of layers, and without "
            "activation_bits: bmpq_tf.layers.QuantReLU and QuantIdentity round activations where "
            "your class puts them."
        ) from error


def _quantizer_argument(layer: Layer, configs: dict[int, QuantizerConfig]) -> dict | None:
    """Returns the `quantizer` of a layer's twin, for a composite with those of the layers inside;
    `None` where nothing is quantized.
    """
    entry = entry_for(layer)
    if entry is None or not entry.is_composite or id(layer) in configs:
        return configs[id(layer)].to_dict() if id(layer) in configs else None
    if not any(id(part) in configs for part in keras_graph.sublayers(layer)):
        return None
    return {
        "sublayers": {
            part.name: _quantizer_argument(part, configs)
            for part in keras_compat.layers_inside(layer)
            if entry_for(part)
        }
    }


def _own_candidates(overrides, parts) -> dict[int, tuple[int, ...]]:
    if overrides is not None and not isinstance(overrides, Mapping):
        raise ValueError(
            f"overrides maps names, classes or layers to widths, such as {{'head': (4, 8)}}. "
            f"Received: overrides={overrides!r}."
        )
    found = {}
    for selector, bits in (overrides or {}).items():
        widths = checked_candidates(bits, str(selector))
        found.update(dict.fromkeys(covered(selector, parts, "overrides"), widths))
    return found


def _check_overrides(
    overrides, parts: list[Layer], configs: dict[int, QuantizerConfig], reasons: str
) -> None:
    """Raises ValueError for widths that the file could not hold, of a layer that stays float."""
    for selector in overrides or ():
        if not covered(selector, parts, "overrides") & set(configs):
            raise ValueError(
                "overrides gives widths to layers that stay float, so neither training nor the "
                "exported file could hold them. "
                f"Received: overrides={{{selector!r}: "
                f"{overrides[selector]!r}}}.{reasons or ' None of them is known and chosen.'}"
            )
