"""What a model's file for a microcontroller will take, from the untrained model: TFLM itself is
asked for its memory, with one kernel unpacked after the other.
"""

import contextlib
import math
from collections.abc import Collection, Iterator

import keras
import numpy as np

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.allocation.device_plan import DevicePlan
from bmpq_tf.conversion.cloning import clone
from bmpq_tf.conversion.freeze import in_float32
from bmpq_tf.export import stages
from bmpq_tf.export.checks import check_micro
from bmpq_tf.export.converter import origin
from bmpq_tf.export.micro.forms import TABLE_BYTES
from bmpq_tf.export.micro.measured_forms import MeasuredForms, aligned, computed
from bmpq_tf.export.state import ExportOptions, ExportState
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.verification.inputs import input_batches
from bmpq_tf.layers.activation_quantizer import ActivationQuantizer
from bmpq_tf.layers.serialization import is_of_user
from bmpq_tf.model import graph_view, keras_graph
from bmpq_tf.model.kernels import model_kernels

WIDTHS = range(2, 9)
# Of the file's metadata: the budget in words, and a few for each kernel's width.
_METADATA_BYTES, _METADATA_BYTES_EACH = 192, 3
_PREPARATION = (
    stages.convert,
    stages.find_kernels,
    stages.calibrate,
    stages.write_integers,
    stages.clean_up,
)


def device_plan(model: keras.Model) -> DevicePlan:
    """Returns what a file for a microcontroller takes at each width of each kernel.

    The graph is that of the export, with weights drawn at random: BatchNorm turns signs in some
    channels, as it may once it is trained.

    Args:
        model: a built quantized model, trained or not.

    Raises:
        ModuleNotFoundError: the extra `micro` is not installed.
        ValueError, ExportError, ConversionError: as `bmpq_tf.export_tflite` for `"micro"`.
    """
    model = graph_view.as_graph(model)
    check_micro(model)
    state = _int8_file(model)
    measured = MeasuredForms(state.content)
    base = measured.arena({})
    symmetric = {
        one.kernel.path for one in state.kernels if one.kernel.two_bit_levels == "symmetric"
    }
    constants = _constants(state, measured.kernels)
    forms = measured.forms(constants, WIDTHS, symmetric)
    flash = measured.int8_bytes() - sum(
        aligned(measured.kernels[name].count) for tensors in constants.values() for name in tensors
    )
    flash += _METADATA_BYTES + _METADATA_BYTES_EACH * len(state.kernels)
    tables = {bits: TABLE_BYTES + 2**bits for bits in range(1, 8)}
    busiest = _busiest(model, state.content)
    return DevicePlan(flash, computed(base), base.persistent, busiest, tables, forms)


def _constants(state: ExportState, packable: Collection[str]) -> dict[str, dict[str, bool]]:
    """The tensors that hold each kernel and may be packed, and whether folding may turn signs
    there.
    """
    found: dict[str, dict[str, bool]] = {}
    for match, kernel in state.stored:
        # What is read as activations of 16 bits stays as it is.
        for path in (match.kernel.path, *match.also) if kernel.name in packable else ():
            found.setdefault(path, {})[kernel.name] = bool((match.row < 0).any())
    return found


def _int8_file(model: keras.Model) -> ExportState:
    """The int8 file of a copy with random weights, and which tensors hold which kernels."""
    with in_float32(model) as computed, _randomized(computed) as copy:
        random = next(input_batches(copy, None))
        inputs = keras_graph.structured_inputs(copy, random)
        state = ExportState(copy, ExportOptions("", "micro", calibrate_with=inputs))
        state.computed, state.kernels = copy, model_kernels(copy)
        for stage in _PREPARATION:
            stage(state)
    return state


@contextlib.contextmanager
def _randomized(model: keras.Model) -> Iterator[keras.Model]:
    """A copy with random weights, or the model itself with them for a while if classes of the
    user's make it, which Keras may not be able to copy.
    """
    layers = keras_compat.flattened_layers(model)
    if not any(is_of_user(layer) for layer in layers):
        copy = clone(model, lambda layer, config: None)
        _randomize(copy)
        yield copy
        return
    kept = {
        id(variable): (variable, variable.numpy())
        for layer in layers
        for variable in keras_compat.own_variables(layer)
    }
    try:
        _randomize(model)
        yield model
    finally:
        for variable, value in kept.values():
            variable.assign(value)


def _randomize(model: keras.Model) -> None:
    """What starts as zeros and ones would be folded away, or shared."""
    random = np.random.default_rng(0)
    for layer in keras_compat.flattened_layers(model):
        # Equal ranges would be one, and take fewer operators than the file's.
        if isinstance(layer, ActivationQuantizer) and not layer.has_range:
            layer.first_range.assign([1.0, 0.0])
        for variable in keras_compat.own_variables(layer):
            values = random.uniform(0.5, 1.5, variable.shape)
            if variable.name in ("bias", "beta", "moving_mean", "gamma"):
                values = values * np.sign(random.uniform(-1, 1, variable.shape))
            elif variable.name != "moving_variance":
                continue
            variable.assign(values)


def _busiest(model: keras.Model, content: bytes) -> str:
    """The operator at which the activations that are alive take the most memory, in words."""
    file = flatbuffer.parse(content)
    subgraph = file.subgraphs[0]
    last: dict[int, int] = {index: len(subgraph.operators) for index in subgraph.outputs}
    first: dict[int, int] = dict.fromkeys(subgraph.inputs, 0)
    for position, operator in enumerate(subgraph.operators):
        for index in operator.outputs:
            first.setdefault(index, position)
        for index in [*operator.inputs, *operator.outputs]:
            last[index] = max(last.get(index, 0), position)

    def alive(position: int) -> int:
        return sum(
            math.prod(map(int, subgraph.tensors[index].shape))
            for index, begin in first.items()
            if begin <= position <= last[index]
        )

    place = max(range(len(subgraph.operators)), key=alive)
    operator = subgraph.operators[place]
    name = flatbuffer.schema_name(flatbuffer.builtin_of(file, operator))
    owner = origin.layer_of(model, flatbuffer.tensor_name(subgraph.tensors[operator.outputs[0]]))
    return f"{name} of layer {owner}" if owner else name
