"""What a model's file for a microcontroller will take, from the untrained model: TFLM itself is
asked for its memory, with one kernel unpacked after the other.
"""

import contextlib
import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping

import keras
import numpy as np

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.allocation.device_plan import DevicePlan, KernelForm
from bmpq_tf.conversion.cloning import clone
from bmpq_tf.conversion.freeze import in_float32
from bmpq_tf.export import stages
from bmpq_tf.export.checks import check_micro
from bmpq_tf.export.converter import origin
from bmpq_tf.export.micro import minimal, packing
from bmpq_tf.export.micro.runtime import Arena, least_arena
from bmpq_tf.export.state import ExportOptions, ExportState
from bmpq_tf.export.tflite import cleanup, flatbuffer
from bmpq_tf.export.verification.inputs import input_batches
from bmpq_tf.layers.activation_quantizer import ActivationQuantizer
from bmpq_tf.layers.serialization import is_of_user
from bmpq_tf.model import graph_view, keras_graph
from bmpq_tf.model.kernels import model_kernels

WIDTHS = range(2, 9)
# Of a buffer that starts at a multiple of 16 bytes.
_ALIGNMENT = 16
# Of the file's metadata: the budget in words, and a few for each kernel's width.
_METADATA_BYTES, _METADATA_BYTES_EACH = 192, 3
# Bytes of a constant that TFLM may look at before it runs: shapes, axes, the headers of tables.
_LARGEST_READ = 1024
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
    measured = _Measured(state.content)
    base = measured.arena({})
    forms: dict[str, dict[int, KernelForm]] = {}
    symmetric = {
        one.kernel.path for one in state.kernels if one.kernel.two_bit_levels == "symmetric"
    }
    taken = 0
    for path, constants in _constants(state, measured.kernels).items():
        taken += sum(_aligned(measured.kernels[name].count) for name in constants)
        forms[path] = {
            bits: measured.form(constants, bits, base, bits == 2 and path in symmetric)
            for bits in WIDTHS
        }
    flash = measured.int8_bytes() - taken
    flash += _METADATA_BYTES + _METADATA_BYTES_EACH * len(state.kernels)
    tables = {bits: packing.TABLE_BYTES + 2**bits for bits in range(1, 8)}
    busiest = _busiest(model, state.content)
    return DevicePlan(flash, _computed(base), base.persistent, busiest, tables, forms)


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


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


class _Measured:
    """Files of one int8 model with some kernels in other forms, and their arenas."""

    def __init__(self, content: bytes):
        self._content = content
        model = flatbuffer.parse(content)
        minimal.equal_scales_as_one(model)
        self.kernels = packing.kernels(model)
        self._arenas: dict[tuple, Arena] = {}

    def int8_bytes(self) -> int:
        """The size of the file with all kernels in int8."""
        return len(_serialised(self._packed({})))

    def arena(self, forms: Mapping[str, packing.Packed]) -> Arena:
        # The width of an index changes nothing.
        key = tuple(sorted((name, form.form) for name, form in forms.items()))
        if key not in self._arenas:
            model = self._packed(forms)
            # Memory is planned by sizes alone, so the weights themselves stay out of it.
            for buffer in model.buffers:
                if buffer.data is not None:
                    buffer.data = buffer.data[:_LARGEST_READ]
            self._arenas[key] = least_arena(_serialised(model), run=False)
        return self._arenas[key]

    def _packed(self, forms: Mapping[str, packing.Packed]):
        model = flatbuffer.parse(self._content)
        minimal.equal_scales_as_one(model)
        # Indices of zero stand for those that are not known yet.
        packing.pack(model, forms, lambda indices, bits: bytes(-(-indices.size * bits // 8)))
        minimal.strip(model)
        cleanup.clean_up(model)
        return model

    def form(
        self, constants: Mapping[str, bool], bits: int, base: Arena, symmetric: bool
    ) -> KernelForm:
        """What one kernel of the model, which may lie in several tensors, takes at a width, of
        symmetric levels or two's complement.

        Signs may turn or not, which decides between forms, so it is the most of both.
        """
        cases = [self._case(constants, bits, turned, symmetric) for turned in (True, False)]
        arenas = [
            self.arena({name: form for name, form in case.items() if form.form != "int8"})
            for case in cases
        ]
        worst, plain = cases
        shared = [form for form in worst.values() if form.shares_table]
        flash = max(
            sum(_aligned(form.bytes - form.shares_table * _table(form)) for form in worst.values()),
            sum(_aligned(form.bytes - (form in shared) * _table(form)) for form in plain.values()),
        )
        return KernelForm(
            flash,
            shared[0].bits if shared else None,
            max(map(_computed, arenas)),
            max(arena.persistent for arena in arenas) - base.persistent,
        )

    def _case(
        self, constants, bits: int, turned: bool, symmetric: bool
    ) -> dict[str, packing.Packed]:
        return {
            name: packing.smallest(
                _symmetric(self.kernels[name])
                if symmetric
                else _at_width(self.kernels[name], bits, turned and may_turn)
            )
            for name, may_turn in constants.items()
        }


def _serialised(model) -> bytes:
    from bmpq_tf._compat import tflite_micro

    return tflite_micro.aligned(flatbuffer.serialised(model))


def _computed(arena: Arena) -> int:
    """What is not kept, in bytes."""
    return arena.bytes - arena.persistent


def _table(form: packing.Packed) -> int:
    return packing.TABLE_BYTES + 2**form.bits


def _symmetric(kernel: packing.Kernel) -> packing.Kernel:
    """A kernel as it comes out of training at 2 bits of symmetric levels, whatever the signs."""
    highs = np.full_like(kernel.highs, 3)
    return dataclasses.replace(kernel, lows=-highs, highs=highs, step=2)


def _at_width(kernel: packing.Kernel, bits: int, turned: bool) -> packing.Kernel:
    """A kernel as it may come out of training at a width; `turned`: with the signs of every other
    channel turned.
    """
    level = 2 ** (bits - 1)
    other = np.arange(len(kernel.lows)) % 2 * turned
    highs = np.minimum(level - 1 + other, 127)
    lows = np.maximum(other - level, -127)
    return dataclasses.replace(kernel, lows=lows, highs=highs, step=1)


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
    last: dict[int, int] = {int(index): len(subgraph.operators) for index in subgraph.outputs}
    first: dict[int, int] = {int(index): 0 for index in subgraph.inputs}
    for position, operator in enumerate(subgraph.operators):
        for index in map(int, operator.outputs):
            first.setdefault(index, position)
        for index in map(int, [*operator.inputs, *operator.outputs]):
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
