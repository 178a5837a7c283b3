"""A Keras model's kernels as the allocation sees them, and what training measured of them."""

import collections
import dataclasses
import math
import re
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.allocation.budget import Budget
from bmpq_tf.allocation.device_plan import DevicePlan
from bmpq_tf.allocation.kernel import FLOAT_BITS, Kernel
from bmpq_tf.allocation.sensitivity import Measurement
from bmpq_tf.arithmetic import scales
from bmpq_tf.layers.base import QuantizedLayer
from bmpq_tf.layers.kernel_quantizer import KernelQuantizer
from bmpq_tf.layers.registry import entry_for, quantized_entry_for
from bmpq_tf.model import graph_view, keras_graph
from bmpq_tf.model.activation_widths import activation_widths

_DENSE = (keras.layers.Dense, keras.layers.EinsumDense)
_DEPTHWISE = (
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)
_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    *_DEPTHWISE,
)


@dataclasses.dataclass(frozen=True)
class KernelState:
    """One kernel of a model.

    Attributes:
        kernel: its path (with `#2` and so on where nested models have several of the same), size
            and candidates.
        variable: the float weights.
        quantizer: its width, scales and accumulators; `None` if it stays float.
        layer: the Keras layer that holds it.
        calls: how often the model's graph calls that layer; 1 where it does not show.
    """

    kernel: Kernel
    variable: keras.Variable
    quantizer: KernelQuantizer | None
    layer: keras.layers.Layer
    calls: int = 1

    @property
    def quantized(self) -> KernelQuantizer:
        """The quantizer, of a kernel that is known to have one."""
        assert self.quantizer is not None
        return self.quantizer

    @property
    def bits(self) -> int:
        """The present width; 32 for a kernel that stays float."""
        return self.quantizer.width if self.quantizer else FLOAT_BITS

    @property
    def is_open(self) -> bool:
        """Whether the allocation may choose: more than one candidate, and gradients to judge by."""
        return (
            self.quantizer is not None
            and len(self.kernel.candidates) > 1
            and self.variable.trainable
        )


def model_kernels(model: keras.Model) -> list[KernelState]:
    """Returns every kernel of a model once, in the model's order.

    Quantized ones, and the float ones that count 32 bits.
    """
    states, seen, names = [], set(), collections.Counter()

    def named(variable) -> str:
        # Keras's paths leave out the names of nested models, so two may have layers of one path.
        names[variable.path] += 1
        number = names[variable.path]
        return variable.path if number == 1 else f"{variable.path}#{number}"

    activations, (calls, uses) = activation_widths(model), _calls(model)
    for layer in keras_compat.flattened_layers(model):
        if isinstance(layer, QuantizedLayer):
            for position, (variable, quantizer) in enumerate(layer.kernels()):
                # Files store a scale for each channel, whatever shares one in training.
                shape = scales.scale_shape(variable.shape, quantizer.channel_axes)
                kernel = Kernel(
                    path=named(variable),
                    weights=math.prod(variable.shape),
                    candidates=quantizer.config.candidate_bits,
                    pinned=quantizer.config.pinned,
                    end=quantizer.config.end,
                    channels=math.prod(shape),
                    macs=_macs(layer, variable, calls[id(layer)]),
                    # What a separable convolution's second kernel reads never leaves the operator,
                    # and is float.
                    activation_bits=activations[id(layer)] if position == 0 else FLOAT_BITS,
                    window=_window(layer, variable),
                    depthwise=isinstance(layer, _DEPTHWISE) and len(quantizer.channel_axes) > 1,
                    two_bit_levels=quantizer.config.two_bit_levels,
                )
                used = max(1, uses[id(layer)])
                states.append(KernelState(kernel, variable, quantizer, layer, used))
        else:
            for variable in keras_graph.kernel_variables(layer):
                # A tied kernel is a weight of several layers.
                if id(variable) in seen:
                    continue
                seen.add(id(variable))
                weights, macs = math.prod(variable.shape), _macs(layer, variable, calls[id(layer)])
                kernel = Kernel(named(variable), weights, (FLOAT_BITS,), macs=macs)
                states.append(KernelState(kernel, variable, None, layer))
    return states


def check_built(model: keras.Model) -> None:
    """Raises ValueError for a model whose kernels have no size yet."""
    if not model.built:
        raise ValueError(
            f"Model '{model.name}' is not built, so its kernels have no size yet. Call it on a "
            "batch or build() it first."
        )


def total_bits(states: Sequence[KernelState]) -> int:
    """Returns the model's present parameter bits, `sum n_l * b_l` over every kernel."""
    return sum(state.kernel.weights * state.bits for state in states)


def compression(states: Sequence[KernelState]) -> float:
    """Returns how many times fewer parameter bits than float32 the model has now."""
    return FLOAT_BITS * sum(state.kernel.weights for state in states) / total_bits(states)


def measurement(state: KernelState, uses_per_step: float = 1.0) -> Measurement:
    """Reads a kernel's accumulators as means over the mini-batches since the last reset.

    Args:
        state: a quantized kernel whose gradients were finite at least once.
        uses_per_step: how often a mini-batch goes through it; a shared layer's uses add up.
    """
    quantizer = state.quantized
    sums = quantizer.accumulated()
    per_step = uses_per_step / max(sums.uses_finite, 1.0)
    joint = quantizer.config.track_sensitivity == "joint"
    weights = quantizer.quantized_from(state.variable.value)
    return Measurement(
        path=state.kernel.path,
        candidates=state.kernel.candidates,
        two_bit_levels=quantizer.config.two_bit_levels,
        weights=weights.numpy(),
        gradient_abs=sums.gradient_abs.astype(np.float64) * per_step,
        gradient_square=sums.gradient_square.astype(np.float64) * per_step,
        enbg=sums.bit_gradient * per_step,
        channel_axes=quantizer.scale_axes,
        deviation=np.asarray(quantizer.deviation(weights)),
        rule=quantizer.config.scale if quantizer.config.scale in scales.RULES else "statistical",
        weight_gradient_abs=read(quantizer.weight_gradient_abs_sum).astype(np.float64) * per_step
        if joint
        else None,
    )


def read(variable: keras.Variable) -> np.ndarray:
    """Returns a variable's value."""
    return tf.convert_to_tensor(variable.value).numpy()


def allocation_history(model: keras.Model) -> list[dict]:
    """Returns every allocation that the model has been through, oldest first, those of a loaded
    checkpoint too.

    Each has `epoch`, `status`, `budget`, and by kernel path `bits`, `sensitivity` and `enbg` (at
    the width before).
    """
    return history_of(model_kernels(model))


def history_of(states: Sequence[KernelState]) -> list[dict]:
    """As `allocation_history`, for kernels that are known already."""
    allocations: dict[int, dict] = {}
    histories = [(state, state.quantizer.history) for state in states if state.quantizer]
    for state, history in histories:
        # A layer that joined a trained model later, such as a new head, was in the last ones only.
        for number, record in enumerate(history, start=-len(history)):
            allocation = allocations.setdefault(
                number, {key: record[key] for key in ("epoch", "status", "budget")}
            )
            for key in ("bits", "sensitivity", "enbg"):
                allocation.setdefault(key, {})[state.kernel.path] = record[key]
    return [allocations[number] for number in sorted(allocations)]


def stored_budget(model: keras.Model) -> Budget | None:
    """Returns the budget of the model's last training under one, or `None` before any."""
    states = model_kernels(model)
    budgets = [one.quantizer.budget for one in states if one.quantizer and one.quantizer.budget]
    # Older files have only that of the last allocation.
    budgets += [allocation["budget"] for allocation in history_of(states)[-1:]]
    return Budget.parse(budgets[0]) if budgets else None


def within(budget: Budget, states: Sequence[KernelState], plan: DevicePlan | None = None) -> bool:
    """Whether the present widths meet every limit of a budget; flash and RAM where there is a
    plan.
    """
    bits = {state.kernel.path: state.bits for state in states}
    return budget.holds([state.kernel for state in states], bits, plan)


def _calls(model: keras.Model) -> tuple[dict[int, list], collections.Counter[int]]:
    """The calls of each layer in a model's graph, by the layer's `id`, and how often it is used,
    which for layers inside layers is as often as those are called.

    Those in a nested model as often as that is called.
    """
    calls, uses = collections.defaultdict(list), collections.Counter[int]()
    graph = graph_view.seen(model)
    for node in keras_compat.nodes_in_order(graph) if graph is not None else ():
        if keras_graph.is_graph(node.operation):
            inner, used = _calls(node.operation)
            uses.update(used)
            for layer, nodes in inner.items():
                calls[layer] += nodes
        elif isinstance(node.operation, keras.layers.Layer):
            calls[id(node.operation)].append(node)
            uses.update(map(id, keras_compat.flattened_layers(node.operation)))
    return calls, uses


def _window(layer: keras.layers.Layer, variable: keras.Variable) -> int | None:
    """How many positions of its input each output reads; `None` where an NPU has no such layer."""
    if isinstance(layer, _DENSE):
        return 1
    return math.prod(variable.shape[:-2]) if isinstance(layer, _CONVOLUTIONS) else None


def _macs(layer: keras.layers.Layer, variable: keras.Variable, calls: Sequence) -> int | None:
    """Multiply-accumulates of a kernel for one example.

    Its weights times the positions that it is applied at; `None` where not known.
    """
    # A lookup multiplies nothing, and neither does a bias of several axes, which counts as a kernel
    # here.
    if isinstance(layer, keras.layers.Embedding) or (
        isinstance(layer, keras.layers.EinsumDense)
        and variable is not keras_compat.einsum_kernel(layer)
    ):
        return 0
    if isinstance(layer, keras.layers.PReLU):
        sizes = [node.output_tensors[0].shape[1:] for node in calls]
        return (
            sum(map(math.prod, sizes))
            if sizes and not any(None in shape for shape in sizes)
            else None
        )
    if not (entry_for(layer) or quantized_entry_for(layer)):
        return None
    positions = [_positions(layer, variable, node) for node in calls]
    known = [count for count in positions if count is not None]
    if not known or len(known) < len(positions):
        return None
    return math.prod(variable.shape) * sum(known)


def _positions(layer: keras.layers.Layer, variable: keras.Variable, node) -> int | None:
    if isinstance(layer, keras.layers.EinsumDense):
        _, axes, outputs = re.split(",|->", layer.equation)
        sizes = node.output_tensors[0].shape[1:]
        return (
            None
            if None in sizes
            else math.prod(sizes)
            // math.prod(
                size for axis, size in zip(axes, variable.shape, strict=True) if axis in outputs
            )
        )
    transposed = "Transpose" in type(layer).__name__
    shape = (node.input_tensors if transposed else node.output_tensors)[0].shape
    sizes = (
        shape[2:]
        if getattr(layer, "data_format", "channels_last") == "channels_first"
        else shape[1:-1]
    )
    return None if None in sizes else math.prod(sizes)
