"""Does a convolution run faster as a fully connected layer, which takes int4 and int2? Measured,
for 1x1 and for 3x3 kernels.
"""

import dataclasses
import statistics
from collections.abc import Sequence

import numpy as np

from bmpq_research import tflite_builder
from bmpq_research.runtime_probe import one_operator, probe, weighted_operators
from bmpq_tf._compat.litert import schema
from bmpq_tf.export.tflite import flatbuffer

_BUILTIN = schema.BuiltinOperator
_FLOAT32 = schema.TensorType.FLOAT32
_INT32 = schema.TensorType.INT32
# Side of the square feature map, input channels, output channels.
POINTWISE = tuple(
    (side, *channels)
    for side in (1, 4, 7, 14, 32)
    for channels in ((64, 64), (320, 64), (64, 384), (960, 160))
    if side < 32 or channels[0] < 960
)
DENSE = tuple(
    (rows, *channels)
    for rows in (1, 8, 16, 64)
    for channels in ((64, 10), (512, 512), (1024, 1024), (2048, 1000))
)
SQUARE = ((8, 64, 64), (32, 64, 64))


@dataclasses.dataclass(frozen=True)
class Lowering:
    """Speeds of one shape, relative to the int8 operator that would run otherwise.

    Attributes:
        kind: `"1x1"`, `"3x3"` or `"dense"`.
        shape: side or rows, input channels, output channels.
        speeds: by width, of the fully connected layer.
    """

    kind: str
    shape: tuple[int, int, int]
    speeds: dict[int, float]


def measure(rounds: int = 15) -> list[Lowering]:
    """Times every shape in LiteRT with XNNPACK on one thread, dynamic range, medians of alternated
    rounds.
    """
    operators = {operator.name: operator for operator in weighted_operators.OPERATORS}
    pointwise = operators["FULLY_CONNECTED for a 1x1 convolution"]
    dense = operators["FULLY_CONNECTED"]
    found = []
    for side, inputs, outputs in POINTWISE:
        image = (1, side, side, inputs)
        convolution = dataclasses.replace(
            operators["CONV_2D 1x1"], timed_input=image, timed_weight=(outputs, 1, 1, inputs)
        )
        lowered = dataclasses.replace(pointwise, timed_input=image, timed_weight=(outputs, inputs))
        contestants = {bits: _built(lowered, bits) for bits in probe.WIDTHS}
        found.append(
            Lowering(
                "1x1", (side, inputs, outputs), _ratios(_built(convolution, 8), contestants, rounds)
            )
        )
    for rows, inputs, outputs in DENSE:
        layer = dataclasses.replace(
            dense, timed_input=(rows, inputs), timed_weight=(outputs, inputs)
        )
        contestants = {bits: _built(layer, bits) for bits in probe.WIDTHS}
        found.append(
            Lowering("dense", (rows, inputs, outputs), _ratios(contestants[8], contestants, rounds))
        )
    for side, inputs, outputs in SQUARE:
        convolution = dataclasses.replace(
            operators["CONV_2D 3x3"],
            timed_input=(1, side + 2, side + 2, inputs),
            timed_weight=(outputs, 3, 3, inputs),
        )
        contestants = {bits: _patches(side, inputs, outputs, bits) for bits in probe.WIDTHS}
        found.append(
            Lowering(
                "3x3", (side, inputs, outputs), _ratios(_built(convolution, 8), contestants, rounds)
            )
        )
    return found


def _built(operator: weighted_operators.Operator, bits: int) -> one_operator.Case:
    return one_operator.build(operator, bits, "channel", "dynamic", timed=True)


def _ratios(
    base: one_operator.Case, contestants: dict[int, one_operator.Case], rounds: int
) -> dict[int, float]:
    own = probe.timer(base, probe.RUNTIMES[0])
    timers = {bits: probe.timer(case, probe.RUNTIMES[0]) for bits, case in contestants.items()}
    ratios: dict[int, list[float]] = {bits: [] for bits in timers}
    for _ in range(rounds):
        base_time = own()
        for bits, timer in timers.items():
            ratios[bits].append(base_time / timer())
    return {bits: statistics.median(kept) for bits, kept in ratios.items()}


def _patches(side: int, inputs: int, outputs: int, bits: int) -> one_operator.Case:
    """A 3x3 convolution as nine slices, a concatenation and a fully connected layer."""
    file, generator = tflite_builder.Builder(), np.random.default_rng(0)
    image = (1, side + 2, side + 2, inputs)
    fed = file.tensor("input", image, _FLOAT32)
    size = file.tensor("size", [4], _INT32, np.int32([1, side, side, inputs]))
    slices = [
        _slice(file, fed, size, (0, row, column, 0), (1, side, side, inputs))
        for row in range(3)
        for column in range(3)
    ]
    patches = file.tensor("patches", (1, side, side, 9 * inputs), _FLOAT32)
    file.operator(_BUILTIN.CONCATENATION, slices, [patches], ("Concatenation", {"axis": 3}))
    integers = generator.integers(-1, 2, (outputs, 9 * inputs)).astype(np.int8)
    grid = (np.ones(outputs, np.float32), np.zeros(outputs, np.int64), 0)
    kernel = file.tensor(
        "weights",
        integers.shape,
        one_operator.TYPES[bits],
        flatbuffer.packed(integers, bits),
        grid=grid,
    )
    result = file.tensor("output", (1, side, side, outputs), _FLOAT32)
    file.operator(
        _BUILTIN.FULLY_CONNECTED,
        [patches, kernel, -1],
        [result],
        ("FullyConnected", {"keepNumDims": True}),
    )
    return one_operator.Case(
        file.content([fed], [result]),
        generator.standard_normal(image).astype(np.float32),
        np.zeros(1),
    )


def _slice(
    file: tflite_builder.Builder, fed: int, size: int, begin: Sequence[int], shape: Sequence[int]
) -> int:
    start = file.tensor(f"begin_{begin}", [4], _INT32, np.int32(begin))
    part = file.tensor(f"part_{begin}", shape, _FLOAT32)
    file.operator(_BUILTIN.SLICE, [fed, start, size], [part], ("Slice", {}))
    return part
