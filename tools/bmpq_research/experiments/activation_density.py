"""Activation density (AD): the "during training" scheme that BMPQ compares itself with, by its own
rule.

After Vasquez et al., DATE 2021 (arXiv:2101.04354): the density of a layer is the share of its
activations that are not zero. Training starts at 16 bits; when the densities have come to rest,
each layer's width becomes `round(width * density)`, training goes on, and so forth. First and last
layers keep their widths. There is no budget: the size is what comes out. Ours is what its abstract
leaves open: densities are taken behind the first ReLU that follows a layer, on a fixed sample of
training images, before an epoch; they rest when no layer's moved by more than `tolerance` in an
epoch; there are `rounds` decisions, since a density below 1 would narrow any layer to 2 bits in the
end. The 16 bits are nominal: a kernel has the widest candidate that its nominal width allows.
"""

import keras
import numpy as np

from bmpq_research.experiments.changes import MEASURED
from bmpq_tf import assign_bits
from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.model import keras_graph
from bmpq_tf.model.kernels import allocation_history, model_kernels, total_bits

_DECIDED = "densities at rest"
_FIRST_BITS = 16


class ActivationDensityCallback(keras.callbacks.Callback):
    """Narrows the kernels of a quantized functional model by the density of the activations behind
    them.

    Args:
        images: a batch of inputs to measure densities on, as the model takes them.
        warmup_epochs: epochs before the first decision.
        settle_epochs: epochs at the end without a decision; a third of them if `None`.
        tolerance: how far a density may have moved in an epoch and still be at rest.
        rounds: decisions at most.
        verbose: 1 prints a line for each decision.
    """

    def __init__(
        self,
        images,
        *,
        warmup_epochs=1,
        settle_epochs=None,
        tolerance: float = 0.05,
        rounds: int = 2,
        verbose: int = 1,
    ):
        super().__init__()
        self.images = images
        self.warmup_epochs, self.settle_epochs = warmup_epochs, settle_epochs
        self.tolerance, self.rounds, self.verbose = tolerance, rounds, verbose

    @property
    def history(self) -> list[dict]:
        """What was measured before each epoch, and the widths from then on, as
        `BMPQCallback.history`; `sensitivity` is the density.
        """
        return allocation_history(self.model)

    def on_train_begin(self, logs=None):
        self._layers = followed_by_relu(self.model)
        self._densities = keras.Model(
            self.model.inputs, [relu.output for relu in self._layers.values()]
        )

    def on_epoch_begin(self, epoch, logs=None):
        settle = (
            self.settle_epochs
            if self.settle_epochs is not None
            else max(1, self.params["epochs"] // 3)
        )
        if epoch < self.warmup_epochs or (self.history and self.history[-1]["epoch"] >= epoch):
            return
        densities = self._measured()
        decided = [allocation for allocation in self.history if allocation["status"] == _DECIDED]
        due = (
            len(decided) < self.rounds
            and epoch <= self.params["epochs"] - settle
            and self._at_rest(densities)
        )
        if due:
            changed = self._narrow(densities, decided)
        self._record(epoch, densities, _DECIDED if due else MEASURED)
        if due and self.verbose:
            size = total_bits(model_kernels(self.model)) / 8000
            told = (
                f"densities of {min(densities.values()):.2f} to {max(densities.values()):.2f} "
                "are at rest"
            )
            print(
                f"AD epoch {epoch + 1}: {told}; {len(changed)} changed, {size:.1f} kB", flush=True
            )

    def _measured(self) -> dict[str, float]:
        """The density behind each kernel, by path."""
        outputs = keras.tree.flatten(self._densities([self.images], training=False))
        shares = {
            name: float(np.mean(np.asarray(output) != 0))
            for name, output in zip(self._layers, outputs, strict=True)
        }
        return {
            state.kernel.path: shares[state.layer.name]
            for state in model_kernels(self.model)
            if state.layer.name in shares
        }

    def _at_rest(self, densities: dict[str, float]) -> bool:
        # What was measured just before a decision was of other widths.
        if not self.history or self.history[-1]["status"] == _DECIDED:
            return False
        before = self.history[-1]["sensitivity"]
        return all(
            abs(density - before[path]) <= self.tolerance for path, density in densities.items()
        )

    def _narrow(self, densities: dict[str, float], decided: list[dict]) -> list[str]:
        widths = {}
        for state in model_kernels(self.model):
            path = state.kernel.path
            if not state.is_open or path not in densities:
                continue
            nominal = _FIRST_BITS
            for density in [
                *(allocation["sensitivity"][path] for allocation in decided),
                densities[path],
            ]:
                nominal = round(nominal * density)
            allowed = [bits for bits in state.kernel.candidates if bits <= nominal] or [
                min(state.kernel.candidates)
            ]
            widths[path] = max(allowed)
        return assign_bits(self.model, widths)

    def _record(self, epoch: int, densities: dict[str, float], status: str) -> None:
        """Kept with the model, as allocations are, so that a resumed run knows the densities
        before.
        """
        states = [state for state in model_kernels(self.model) if state.quantizer]
        # A model is held to the budget of its last record; this one's is the size that it has.
        reached = {"weight_bytes": total_bits(model_kernels(self.model)) / 8}
        for state in states:
            record = {"epoch": epoch, "status": status, "budget": reached, "bits": state.bits}
            state.quantizer.history = (
                *state.quantizer.history,
                {**record, "sensitivity": densities.get(state.kernel.path), "enbg": None},
            )


def followed_by_relu(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Returns, by the name of each quantized layer, the first layer behind it, itself included,
    that ends in a ReLU.

    Layers with none behind them are left out.
    """
    found = {}
    for layer in keras_graph.quantized_layers(model):
        reached = [layer]
        while reached and not any(_is_relu(operation) for operation in reached):
            reached = [
                node.operation
                for operation in reached
                for node in keras_compat.calls_after(operation)
            ]
        relu = next((operation for operation in reached if _is_relu(operation)), None)
        if relu is not None:
            found[layer.name] = relu
    return found


def _is_relu(layer) -> bool:
    return (
        isinstance(layer, keras.layers.ReLU)
        or getattr(layer, "activation", None) is keras.activations.relu
    )
