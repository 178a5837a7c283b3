"""The state of one quantized kernel.

Its width, its scales, its accumulated bit gradients and its past allocations.
"""

import contextlib
import contextvars
import json
import math
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.arithmetic import quantizers, scales
from bmpq_tf.layers.config import QuantizerConfig
from bmpq_tf.layers.kernel_scales import KernelScales
from bmpq_tf.layers.oscillation_tracking import OscillationTracking
from bmpq_tf.layers.sensitivity_tracking import SensitivityTracking, with_joined_sums
from bmpq_tf.layers.serialization import serializable

_HISTORY = "allocation_history"
_BUDGET = "budget"
# Of a thread, so that replicas do not see each other's.
_IS_UNROUNDED = contextvars.ContextVar("bmpq_unrounded", default=False)
# No scale is zero.
_UNKNOWN = keras.initializers.Zeros()


@contextlib.contextmanager
def unrounded() -> Iterator[None]:
    """Within it, models compute with their kernels as they are before they are rounded, whose
    gradients are no bit gradients.
    """
    token = _IS_UNROUNDED.set(True)
    try:
        yield
    finally:
        _IS_UNROUNDED.reset(token)


@serializable
class KernelQuantizer(KernelScales, SensitivityTracking, OscillationTracking, keras.layers.Layer):
    """Fake-quantizes one kernel and accumulates the sensitivities of its bits (METHOD.md).

    A width is a scalar variable, so changing it neither retraces nor recompiles. Everything here is
    a variable or lies beside the variables in the saved file, so a checkpoint resumes with the same
    widths, scales, sensitivities and history.

    Args:
        config: the layer's `QuantizerConfig`.
        channel_axes: the kernel's output-channel axes, such as `(-1,)`.
        **kwargs: `keras.layers.Layer`'s own.

    Attributes:
        bits: scalar variable, the present width.
        scale_base, log_gain: variables of the kernel's shape, 1 along the axes that share a scale;
            `S = scale_base * exp(log_gain)` where scales are learned.
        gradient_sums: vector of all that each finite mini-batch adds to, read by `accumulated`. One
            variable, because a step over many small kernels is as long as the list of its
            operations.
        uses_seen: scalar, how often a gradient arrived.
        weight_gradient_abs_sum: of the kernel's shape, the sum over mini-batches of `|g|`; only
            where `track_sensitivity="joint"`.
        last_integers, last_direction, turn_frequency, mean_integers: of the kernel's shape, its
            `oscillations.Oscillations`; these and freezing_threshold, scalar, only where
            `track_oscillations`.
        history: tuple of dicts, what each allocation decided for this kernel.
        budget: dict, that of the last training under one, or `None`.

    Under a `tf.distribute` strategy each replica sums what it sees and reading adds the replicas
    up, so that a step over R replicas counts as R mini-batches. Under several workers, reading is a
    collective operation: all of them read, in the same order.
    """

    def __init__(self, config: QuantizerConfig, channel_axes: Sequence[int], **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.config = config
        self.channel_axes = tuple(channel_axes)
        self.history: tuple[dict, ...] = ()
        self.budget: dict | None = None
        self._start_tracking()
        self._first_base: Callable = _UNKNOWN
        # Whether learned scales are known to have their start. Those of a layer that is built
        # inside a trace get it from the first batch.
        self._is_started = False

    def build_for(self, kernel: keras.Variable) -> None:
        """Builds for a kernel, and starts its learned scales for it."""

        def first_base(shape, dtype=None):
            # Inside a trace the kernel has no value yet: see `_base`.
            self._is_started = tf.executing_eagerly()
            return (
                self._start(self.quantized_from(kernel.value))
                if self._is_started
                else tf.zeros(shape)
            )

        # Keras's build takes shapes only.
        self._first_base = first_base
        self.build(kernel.shape)
        self._first_base = _UNKNOWN

    def build(self, kernel_shape):
        def state(name, shape=(), value=0.0, trainable=False):
            initializer = keras.initializers.Constant(value)
            return self.add_weight(
                name=name,
                shape=shape,
                initializer=initializer,
                trainable=trainable,
                autocast=False,
                aggregation="mean",
            )

        self._channels_shape = scales.scale_shape(kernel_shape, self.channel_axes)
        self.bits = state("bits", value=max(self.config.candidate_bits))
        if self.config.scale == "learned":
            shape = scales.scale_shape(kernel_shape, self.scale_axes)
            self.scale_base = self.add_weight(
                name="scale_base",
                shape=shape,
                initializer=self._first_base,
                trainable=False,
                autocast=False,
                aggregation="mean",
            )
            self.log_gain = state("log_gain", shape, trainable=True)
        self._build_sums(kernel_shape)
        if self.config.track_oscillations:
            self.freezing_threshold = state("freezing_threshold", value=math.inf)
            self._build_oscillations(kernel_shape)

    def call(self, kernel, compute_dtype="float32"):
        """Returns the fake-quantized kernel, float32; its gradient accumulates the sensitivities.

        Args:
            kernel: the float kernel, float32.
            compute_dtype: what the result is computed with; in float16 the loss carries a scale,
                which only the callback tells of.
        """
        kernel = self.quantized_from(kernel)
        if self.config.scale == "learned" and not self._is_started:
            self.scale_base.assign(self._base(kernel))
        if _IS_UNROUNDED.get():
            # What is held because it oscillates is held there too.
            return self._with_held(kernel, tf.stop_gradient(self._scale(kernel)))
        knows_loss_scale = self._scale_loss is not None or compute_dtype != "float16"
        scale = self._scale(kernel, self._loss_factor if knows_loss_scale else None)
        bits = tf.convert_to_tensor(self.bits.value)
        kernel = self._with_held(kernel, scale)
        if not self.trainable:
            # Sums of gradients that nobody asks for would keep their computation in the step.
            kernel, scale = tf.stop_gradient(kernel), tf.stop_gradient(scale)

        def on_gradient(gradient):
            # A kernel without elements has no mean gradient.
            sums_of_gradient = (
                self._accumulate(gradient, scale, bits)
                if self.config.track_sensitivity and 0 not in kernel.shape
                else []
            )
            if self.config.track_oscillations:
                self._watch(
                    quantizers.quantize(kernel, scale, bits, self._levels),
                    lambda mean: quantizers.rounded(mean, bits, self._levels),
                )
            return sums_of_gradient

        return quantizers.fake_quantize(kernel, scale, bits, on_gradient, self._levels)

    def scale(self, kernel) -> tf.Tensor:
        """Returns the present scales, positive float32 that broadcast against the kernel.

        They are what 1 of `integers` stands for: half a step where 2 bits have symmetric levels.
        """
        return self._scale(self.quantized_from(kernel)) * self._unit

    def integers(self, kernel) -> tf.Tensor:
        """Returns the integers that the kernel holds at its present width, float32 of the kernel's
        shape.
        """
        kernel = self.quantized_from(kernel)
        scale, bits = self._scale(kernel), self.bits.value
        steps = quantizers.quantize(self._with_held(kernel, scale), scale, bits, self._levels)
        return steps / self._unit

    @property
    def _unit(self) -> float:
        """What integers are counted in, in steps."""
        return 0.5 if self.width == 2 and self._levels == "symmetric" else 1.0

    @property
    def width(self) -> int:
        """The present width in bits."""
        # Averages of equal weights may lie a little below a whole number.
        return round(float(self.bits.numpy()))

    def set_width(self, width: int, kernel) -> bool:
        """Gives the kernel another width and its scales a new start for it.

        Returns whether it changed.

        Raises:
            ValueError: the width is not among the kernel's candidates.
        """
        self.check_width(width, kernel)
        if width == self.width:
            return False
        self.bits.assign(width)
        self.initialise_scale(kernel)
        return True

    def check_width(self, width: int, kernel) -> None:
        """Raises ValueError if the width is not among the kernel's candidates."""
        if width not in self.config.candidate_bits:
            raise ValueError(
                f"Kernel '{kernel.path}' cannot be {width} bits wide. Received: width={width}, "
                f"candidates {self.config.candidate_bits}."
            )

    def initialise_scale(self, kernel) -> None:
        """Starts learned scales (`scales.initial`; other rules hold no state) and oscillations anew
        for the present width and kernel.
        """
        if self.config.scale == "learned":
            self.scale_base.assign(self._start(self.quantized_from(kernel.value)))
            self.log_gain.assign(tf.zeros(self.log_gain.shape))
        # What was held lies on the old width's grid.
        self.release_oscillating()

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store[_HISTORY] = _as_bytes(list(self.history))
        store[_BUDGET] = _as_bytes(self.budget)

    def load_own_variables(self, store):
        # Keras's stores are no mappings: they have keys(), but neither iterate nor answer `in`.
        values = {key: store[key] for key in list(store.keys())}
        history, budget = values.pop(_HISTORY, None), values.pop(_BUDGET, None)
        places = {
            id(variable): place for place, variable in enumerate(keras_compat.own_variables(self))
        }
        if len(values) == len(places) + 3:
            values = with_joined_sums(values, places[id(self.gradient_sums)])
        super().load_own_variables(values)
        if self.built and self.config.track_oscillations:
            # A file of the last epochs would go on freezing in a fit without the callback.
            self.freezing_threshold.assign(math.inf)
        self.history = () if history is None else tuple(_read(history))
        self.budget = None if budget is None else _read(budget)

    def get_config(self):
        return {
            **super().get_config(),
            "config": self.config.to_dict(),
            "channel_axes": list(self.channel_axes),
        }

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "config": QuantizerConfig.of(config["config"])})


def _as_bytes(plain) -> np.ndarray:
    return np.frombuffer(json.dumps(plain).encode(), np.uint8)


def _read(stored):
    return json.loads(bytes(np.asarray(stored, np.uint8)))
