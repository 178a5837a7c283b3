"""One file of each kind of a model, answered here and on an emulated ARM processor."""

import dataclasses
import pathlib
import tempfile
import time
import warnings
from collections.abc import Sequence

import keras
import numpy as np

import bmpq_tf
from bmpq_tf.export.stages import STAGES
from bmpq_tf.export.state import ExportOptions, ExportState
from bmpq_tf.export.tflite.interpreter import TFLiteModel
from bmpq_tf.export.verification.parity import LIMITS, tolerance_of
from bmpq_tf.export.verification.runtimes import runtime_on
from bmpq_tf.model import keras_graph
from bmpq_tf.model.kernels import model_kernels

# Widths in turn, so that every type is in every file.
_WIDTHS = (8, 4, 2, 4)
# The verification's own limits are not the question here, and no file is trained.
_ANY = 1e9
_FLOATS = ("size", "latency")


@dataclasses.dataclass(frozen=True)
class Answers:
    """How far a file's answers on ARM are from those here.

    Attributes:
        model, mode: which file.
        bytes: its size.
        scale: the largest answer here.
        largest, rms: the largest difference with XNNPACK, and the root mean square of them all,
            relative to the answers' own.
        plain_largest, plain_rms: the same with the built-in kernels.
        seconds: what it took, with the export.
    """

    model: str
    mode: str
    bytes: int
    scale: float
    largest: float
    rms: float
    plain_largest: float
    plain_rms: float
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether they agree.

        Integers are equal with XNNPACK, floats within the limits of parity. Without XNNPACK the
        built-in integer kernels round otherwise on ARM, by a step; there the limits of parity hold
        for integers too.
        """
        if not np.isfinite([self.scale, self.largest, self.plain_largest]).all() or not self.scale:
            return False
        if self.mode == "size":
            limit = float(tolerance_of("size", np.float64(self.scale)))
            return max(self.largest, self.plain_largest) <= limit
        rms = LIMITS.get(self.mode, LIMITS["integer"]).rms
        exact = self.mode in _FLOATS or self.largest == 0
        return exact and max(self.rms, self.plain_rms) <= rms


def prepared(model: keras.Model, batch: list[np.ndarray]) -> keras.Model:
    """Returns the model quantized at 8, 4 and 2 bits in turn.

    Its BatchNorms have moved halfway to a batch's statistics: all the way, deep networks with small
    images would divide by next to nothing.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bmpq_tf.SkippedLayersWarning)
        quantized = bmpq_tf.quantize_model(model, (2, 4, 8))
    for number, state in enumerate(one for one in model_kernels(quantized) if one.is_open):
        state.quantizer.set_width(_WIDTHS[number % len(_WIDTHS)], state.variable)
    norms = [
        layer
        for layer in keras_graph.sublayers(quantized)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.5
    quantized(batch[0] if len(batch) == 1 else batch, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    return quantized


def compare(name: str, model: keras.Model, batch: Sequence[np.ndarray], mode: str) -> Answers:
    """Exports a quantized model and asks both processors.

    Args:
        name: for the table.
        model: a quantized model.
        batch: its inputs, flat.
        mode: as `export_tflite` takes `optimize_for`.

    Raises:
        ExportError, ValueError: the model has no file of this kind.
    """
    start = time.perf_counter()
    inputs = batch[0] if len(batch) == 1 else list(batch)
    more = {} if mode == "size" else {"tolerance": _ANY}
    if mode not in _FLOATS:
        more["calibrate_with"] = inputs
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", bmpq_tf.ConstantColumnsWarning)
        options = ExportOptions(
            pathlib.Path(folder) / "model.tflite", mode, verify_with=inputs, **more
        )
        state = ExportState(model, options)
        for stage in STAGES:
            stage(state)
        # TFLM's package is for x86-64 only: its file's integers are asked as plain int8.
        content = state.integer_content or state.content
    found = []
    for xnnpack in (True, False):
        here = TFLiteModel(content, xnnpack=xnnpack)(batch)
        there = runtime_on("arm64")(content, xnnpack=xnnpack)(batch)
        found.append(_apart(here, there))
    (scale, largest, rms), (_, plain_largest, plain_rms) = found
    seconds = time.perf_counter() - start
    return Answers(
        name, mode, len(state.content), scale, largest, rms, plain_largest, plain_rms, seconds
    )


def _apart(here: Sequence[np.ndarray], there: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """The largest answer, the largest difference, and the worst output's relative root mean
    square.
    """
    scale = largest = rms = 0.0
    for ours, theirs in zip(here, there, strict=True):
        ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
        scale = max(scale, float(np.abs(ours).max()))
        largest = max(largest, float(np.abs(ours - theirs).max()))
        size = max(float(np.square(ours).mean()), float(np.finfo(np.float64).tiny))
        rms = max(rms, float(np.sqrt(np.square(ours - theirs).mean() / size)))
    return scale, largest, rms
