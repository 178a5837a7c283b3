"""`FreezeOscillations`: holds weights that keep jumping between two integers while the last epochs
train.
"""

import math
from typing import Any

import keras
import numpy as np

from bmpq_tf.arguments import real, whole
from bmpq_tf.arithmetic import oscillations
from bmpq_tf.model.kernels import model_kernels, read


class FreezeOscillations(keras.callbacks.Callback):
    """Freezes oscillating weights for the rest of the training (after Nagel et al., ICML 2022; from
    scratch, so in the last epochs only).

    The model must track them: `QuantizationConfig(track_oscillations=True)`, which takes four times
    the kernels' memory. A kernel that changes its width starts anew, with nothing frozen, and so
    does every kernel in the first epochs of another `fit`. Each epoch's logs get `frozen_weights`,
    a share of all that are tracked.

    Args:
        threshold: share of the backward passes, a moving average over about a hundred, in which a
            weight's integer may turn back; above it, it is frozen. A layer that is called twice
            has two a step, and with accumulated gradients most of them change no weight: take a
            smaller share there.
        last_epochs: how many epochs freeze, at least 1; by default a third of the epochs, those in
            which `BMPQCallback` settles.

    Raises:
        ValueError: an argument is not understood; from `fit`: the model tracks no oscillations.

    Example:
        >>> config = bmpq_tf.QuantizationConfig(track_oscillations=True)
        >>> model = bmpq_tf.quantize_model(float_model, (2,), config=config)
        >>> model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> freeze = bmpq_tf.FreezeOscillations(last_epochs=1)
        >>> told = model.fit(images, labels, epochs=2, callbacks=[freeze], verbose=0)
        >>> told.history["frozen_weights"][0], 0.0 <= told.history["frozen_weights"][1] <= 1.0
        (0.0, True)
    """

    # Keras sets both before the first call.
    model: keras.Model
    params: dict[str, Any]

    def __init__(self, threshold: float = 0.02, *, last_epochs: int | None = None):
        super().__init__()
        share, epochs = real(threshold), whole(last_epochs)
        if share is None or not 0.0 < share < 1.0:
            raise ValueError(
                "threshold is a share of the steps, between 0 and 1. Received: "
                f"threshold={threshold!r}."
            )
        if last_epochs is not None and (epochs is None or epochs < 1):
            raise ValueError(
                "last_epochs must be a whole number of epochs, 1 or more. Received: "
                f"last_epochs={last_epochs!r}."
            )
        self.threshold = share
        self.last_epochs = epochs

    def on_train_begin(self, logs=None):
        quantizers = [state.quantizer for state in model_kernels(self.model) if state.quantizer]
        self._tracked = [
            quantizer for quantizer in quantizers if quantizer.config.track_oscillations
        ]
        if not self._tracked:
            raise ValueError(
                f"Model '{self.model.name}' tracks no oscillations. Quantize it with "
                "config=QuantizationConfig(track_oscillations=True)."
            )

    def on_epoch_begin(self, epoch, logs=None):
        last = self.last_epochs or max(1, self.params["epochs"] // 3)
        threshold = self.threshold if epoch >= self.params["epochs"] - last else math.inf
        for quantizer in self._tracked:
            quantizer.freezing_threshold.assign(threshold)
            if threshold == math.inf and np.any(
                np.asarray(read(quantizer.turn_frequency)) == oscillations.HELD
            ):
                quantizer.release_oscillating()

    def on_train_end(self, logs=None):
        # The model keeps what is held; a fit without this callback freezes no more.
        for quantizer in self._tracked:
            quantizer.freezing_threshold.assign(math.inf)

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            held = [
                np.asarray(read(quantizer.turn_frequency)) == oscillations.HELD
                for quantizer in self._tracked
            ]
            logs["frozen_weights"] = float(
                sum(of.sum() for of in held) / max(sum(of.size for of in held), 1)
            )
