"""Where activation quantizers go: at each ReLU, and where a quantized layer would read floats."""

from collections.abc import Callable

import keras

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.allocation.kernel import FLOAT_BITS
from bmpq_tf.layers import QuantReLU
from bmpq_tf.layers.base import RELU_LIMITS, is_cell
from bmpq_tf.layers.inheritance import config_of_parent, keras_class
from bmpq_tf.model import keras_graph
from bmpq_tf.model.activation_widths import (
    RAW,
    RAW_BITS,
    outside_time,
    preserves_values,
    widths_read,
)

Layer = keras.layers.Layer


class ActivationPlacement:
    """Which layers of a float model get which activation quantizers.

    Args:
        model: a built functional or sequential model; `None` where nothing is placed.
        bits: the width of the activations; `None` places nothing.
        chosen: whether a layer is to be quantized.
        weighted: whether a layer that is chosen will have quantized kernels.
    """

    def __init__(
        self,
        model: keras.Model | None,
        bits: int | None,
        chosen: Callable[[Layer], bool],
        weighted: Callable[[Layer], bool],
    ):
        self._bits, self._chosen = bits, chosen
        self._float_ends = set() if bits is None or model is None else _producers_of_outputs(model)

        def emitted(operation) -> int | None:
            ends_in_relu = is_relu(operation) or (
                weighted(operation) and getattr(operation, "activation", None) in RELU_LIMITS
            )
            return (
                bits
                if ends_in_relu and chosen(operation) and id(operation) not in self._float_ends
                else None
            )

        self._read = {} if bits is None or model is None else widths_read(model, emitted)

    def relu(self, layer: Layer) -> QuantReLU | None:
        """Returns the quantized twin of a ReLU.

        `None` for all else, and for a ReLU that stays float.
        """
        if (
            self._bits is None
            or not is_relu(layer)
            or not self._chosen(layer)
            or id(layer) in self._float_ends
        ):
            return None
        config = config_of_parent(layer)
        if isinstance(layer, keras.layers.Activation):
            config = {
                **{key: config[key] for key in ("name", "trainable", "dtype")},
                "max_value": RELU_LIMITS[layer.activation],
            }
        return QuantReLU.from_config({**config, "bits": self._bits})

    def bits(self, layer: Layer) -> dict[str, int | None]:
        """Returns the fields of a weighted layer's `QuantizerConfig` that say what to do with its
        activations.

        A layer that the model's graph does not show, such as one inside attention, rounds its input
        itself. A recurrent cell reads its own last output besides, which nothing rounds, so what it
        reads stays float.
        """
        if self._bits is None or is_cell(layer) or isinstance(layer, keras.layers.Embedding):
            return {"activation_bits": None, "input_bits": None}
        output = None if id(layer) in self._float_ends else self._bits
        read = self._read.get(id(layer), {FLOAT_BITS})
        if not read & {RAW, FLOAT_BITS}:
            return {"activation_bits": output, "input_bits": None}
        # What comes from the model's inputs alone has 8 bits, or 16 like the rest.
        given = max(RAW_BITS, self._bits) if read == {RAW} else self._bits
        return {"activation_bits": output, "input_bits": given}


def is_relu(operation) -> bool:
    """Whether this is a layer that is nothing but a ReLU, with or without a maximum."""
    computes_as = keras_class(operation)
    if computes_as is keras.layers.ReLU:
        return not operation.negative_slope
    return computes_as is keras.layers.Activation and operation.activation in RELU_LIMITS


def _producers_of_outputs(model: keras.Model) -> set[int]:
    """Returns the `id`s of the operations whose values are the model's outputs, looking into nested
    models and past reshaping.
    """
    found: set[int] = set()
    # What stands outside for the inputs of the nested models that were entered.
    outside: dict[int, list] = {}
    pending, seen = list(model.outputs), set()
    while pending:
        tensor = pending.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        pending.extend(outside.get(id(tensor), ()))
        operation, node, tensor_index = keras_compat.producer(tensor)
        shown = outside_time(operation)
        if keras_graph.is_graph(shown):
            for inner, outer in zip(
                shown.inputs, keras_graph.inputs_of_call(node, shown), strict=True
            ):
                if isinstance(outer, keras.KerasTensor):  # Not a constant.
                    outside.setdefault(id(inner), []).append(outer)
            pending.append(shown.outputs[tensor_index])
        elif preserves_values(shown):
            pending.extend(node.input_tensors)
        else:
            found.add(id(shown))
    return found
