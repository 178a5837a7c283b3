"""Activation density (AD): the "during training" scheme that BMPQ compares itself with, by its own rule.

After Vasquez et al., DATE 2021 (arXiv:2101.04354): the density of a layer is the share of its activations that are not zero. When the
densities have stopped moving, each layer's width becomes `round(width * density)`, training goes on, and so forth. First and last
layers keep their widths. There is no budget: the size is what comes out. Ours is what its abstract leaves open: densities are taken
behind the first ReLU that follows a layer, on a fixed sample of training images, before an epoch; they have stopped when no layer's
moved by more than `tolerance` since the epoch before; widths stay within the kernel's candidates, the nearest one below where
the rounded width is none.
"""

import keras
import numpy as np

from bmpq_tf import graph
from bmpq_tf.callbacks import reset_slots
from bmpq_tf.kernels import allocation_history, model_kernels, total_bits

_STATUS = "activation density"


class ActivationDensityCallback(keras.callbacks.Callback):
    """Narrows the kernels of a quantized functional model by the density of the activations behind them.

    Args:
        images: a batch of inputs to measure densities on, as the model takes them.
        warmup_epochs: epochs before the first decision.
        settle_epochs: epochs at the end without a decision; a third of them if `None`.
        tolerance: how far a density may have moved in an epoch and still count as resting.
        verbose: 1 prints a line for each decision.
    """

    def __init__(self, images, *, warmup_epochs: int = 1, settle_epochs: int | None = None, tolerance: float = 0.05, verbose: int = 1):
        super().__init__()
        self.images = images
        self.warmup_epochs, self.settle_epochs = warmup_epochs, settle_epochs
        self.tolerance, self.verbose = tolerance, verbose

    @property
    def history(self) -> list[dict]:
        """What was measured before each epoch, and the widths from then on, as `BMPQCallback.history`; `sensitivity` is the density."""
        return allocation_history(self.model)

    def on_train_begin(self, logs=None):
        self._layers = followed_by_relu(self.model)
        self._densities = keras.Model(self.model.inputs, [relu.output for relu in self._layers.values()])

    def on_epoch_begin(self, epoch, logs=None):
        settle = self.settle_epochs if self.settle_epochs is not None else max(1, self.params["epochs"] // 3)
        if epoch < self.warmup_epochs or (self.history and self.history[-1]["epoch"] >= epoch):
            return
        densities = self._measured()
        resting = bool(self.history) and self._moved(densities) <= self.tolerance
        changed = self._narrow(densities) if resting and epoch <= self.params["epochs"] - settle else []
        self._record(epoch, densities)
        if changed and self.verbose:
            size = total_bits(model_kernels(self.model)) / 8000
            print(f"AD epoch {epoch + 1}: densities rest, from {min(densities.values()):.2f}; {len(changed)} narrower, {size:.1f} kB", flush=True)

    def _measured(self) -> dict[str, float]:
        """The density behind each kernel, by path."""
        outputs = keras.tree.flatten(self._densities(self.images, training=False))
        shares = {name: float(np.mean(np.asarray(output) != 0)) for name, output in zip(self._layers, outputs, strict=True)}
        return {state.kernel.path: shares[state.layer.name] for state in model_kernels(self.model) if state.layer.name in shares}

    def _moved(self, densities: dict[str, float]) -> float:
        before = self.history[-1]["sensitivity"]
        return max((abs(density - before[path]) for path, density in densities.items() if before.get(path) is not None), default=0.0)

    def _narrow(self, densities: dict[str, float]) -> list[str]:
        changed = []
        for state in model_kernels(self.model):
            if not state.is_open or state.kernel.path not in densities:
                continue
            wanted = round(state.bits * densities[state.kernel.path])
            candidates = [bits for bits in state.kernel.candidates if bits <= wanted] or [min(state.kernel.candidates)]
            if state.quantizer.set_width(max(candidates), state.variable):
                changed.append(state.kernel.path)
                if state.quantizer.config.scale == "learned":
                    reset_slots(self.model.optimizer, state.quantizer.log_gain)
        return changed

    def _record(self, epoch: int, densities: dict[str, float]) -> None:
        """Kept with the model, as allocations are, so that a resumed run knows the densities before."""
        states = [state for state in model_kernels(self.model) if state.quantizer]
        reached = {"weight_bytes": total_bits(model_kernels(self.model)) / 8}
        for state in states:
            record = {"epoch": epoch, "status": _STATUS, "budget": reached, "bits": state.bits}
            state.quantizer.history = (*state.quantizer.history, {**record, "sensitivity": densities.get(state.kernel.path), "enbg": None})


def followed_by_relu(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Returns, by the name of each quantized layer, the first layer behind it, itself included, that ends in a ReLU.

    Layers with none behind them are left out.
    """
    found = {}
    for layer in graph.quantized_layers(model):
        reached = [layer]
        while reached and not any(_is_relu(operation) for operation in reached):
            reached = [node.operation for operation in reached for node in operation._outbound_nodes]
        relu = next((operation for operation in reached if _is_relu(operation)), None)
        if relu is not None:
            found[layer.name] = relu
    return found


def _is_relu(layer) -> bool:
    return isinstance(layer, keras.layers.ReLU) or getattr(layer, "activation", None) is keras.activations.relu
