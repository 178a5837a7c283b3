"""Which optimizer trains each kernel: whose loss scale its gradients carry, and whose memory starts
anew with its width.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from bmpq_tf._compat import keras_optimizers
from bmpq_tf.model.kernels import KernelState
from bmpq_tf.training.optimizer_state import optimizers_in, trains

# What a model overrides that is trained in another way than by Keras's own step.
_OWN_TRAINING = ("train_step", "compute_loss", "make_train_function")


def trains_in_own_way(model: keras.Model) -> bool:
    """Whether a model's class says itself how it is trained, as wrappers of networks do."""
    return any(
        getattr(type(model), name, None) is not getattr(keras.Model, name) for name in _OWN_TRAINING
    )


class KernelOptimizers:
    """The optimizers of a fit, found by whose variables they hold and who takes steps.

    An optimizer is built by its first step, after that was traced. Until then one that is likely
    stands in; where it was another, `settle` says so, and the step is traced anew.

    Args:
        fitted: what `fit` was called on.
        part: the quantized model, in it or beside it.
        states: the kernels of `part`.

    Raises:
        ValueError: there is no optimizer, and it matters.
    """

    def __init__(self, fitted: keras.Model, part: keras.Model, states: Sequence[KernelState]):
        self._fitted, self._part = fitted, part
        self._states = self._unsettled = [state for state in states if state.quantizer]
        self._uses = {state.kernel.path: _uses(state) for state in self._states}
        found = self._found()
        if not found and any(_matters(state) for state in self._unsettled):
            raise ValueError(self._not_found("the quantized kernels", found))
        self._before = {id(one): keras_optimizers.progress(one) for one in found}
        stale = [_follow(state, self._likely(state, found)) for state in self._unsettled]
        if any(stale) and fitted.train_function is not None:
            fitted.make_train_function(force=True)

    def settle(self, is_epoch_end: bool = False) -> None:
        """Finds out who trains each kernel, once steps were taken. To be called again until all
        kernels had a gradient, and at the end of an epoch, when an optimizer that adds up gradients
        of several batches must have taken a step.

        Raises:
            ValueError: a kernel has gradients, and no optimizer that was found trains it; several
                do, with different loss scales; or the loss scale turns out to be another one and
                the step cannot be traced anew.
        """
        found = self._found() if self._unsettled else []
        stale, lost, unsettled = [], [], []
        for state in self._unsettled:
            if _uses(state) == self._uses[state.kernel.path]:
                unsettled.append(state)
                continue
            holding = [one for one in found if trains(one, state.variable)]
            training = [one for one in holding if self._has_stepped(one)]
            if holding and not training and not is_epoch_end:
                unsettled.append(state)
                continue
            if not training and _matters(state):
                lost.append(state.kernel.path)
            scaling = {id(one) if _scales(one) else None: one for one in training}
            if len(scaling) > 1:
                raise ValueError(
                    f"Kernel '{state.kernel.path}' is trained by several optimizers of different "
                    f"loss scales. Received: {_names(training)}. Let one of them scale the loss "
                    "of all, or none."
                )
            if training and _follow(state, training[0]):
                stale.append(state)
        if lost:
            raise ValueError(self._not_found(", ".join(lost), found))
        if stale:
            self._trace_anew(stale)
        self._unsettled = unsettled

    def forget(self) -> None:
        """Lets go of the optimizers' loss scales, at the end of a fit."""
        for state in self._states:
            state.quantized.forget_loss_scale()

    def _trace_anew(self, stale: Sequence[KernelState]) -> None:
        if self._fitted.train_function is None:
            raise ValueError(
                f"The step was traced before it was known which optimizer trains "
                f"'{stale[0].kernel.path}', so its gradients carry a loss scale that is not known. "
                "Call optimizer.build(variables) of each optimizer before on_train_begin."
            )
        for state in self._states:
            state.quantized.reset_accumulators()
        self._fitted.make_train_function(force=True)

    def _found(self) -> list[keras.optimizers.Optimizer]:
        return optimizers_in(self._fitted, self._part)

    def _has_stepped(self, optimizer: keras.optimizers.Optimizer) -> bool:
        now = keras_optimizers.progress(optimizer)
        return now != self._before.get(id(optimizer), (0.0, None, None))

    def _likely(
        self, state: KernelState, found: Sequence[keras.optimizers.Optimizer]
    ) -> keras.optimizers.Optimizer | None:
        """Who will train a kernel, before the first step."""
        compiled = getattr(self._fitted, "optimizer", None)
        if compiled is not None and not trains_in_own_way(self._fitted):
            return compiled
        held = [one for one in found if not one.built or trains(one, state.variable)]
        possible = held or list(found)

        def likelihood(optimizer: keras.optimizers.Optimizer) -> tuple[bool, bool]:
            return optimizer.built and self._before[id(optimizer)][0] > 0, optimizer is not compiled

        return max(possible, key=likelihood, default=None)

    def _not_found(self, kernels: str, found: Sequence[keras.optimizers.Optimizer]) -> str:
        part = self._part.name
        nor = "" if self._part is self._fitted else f", nor has '{part}'"
        return (
            f"Model '{self._fitted.name}' has no optimizer that trains {kernels}{nor}, and its "
            "loss scale and its memory of learned scales belong to the widths. Received: "
            f"{_names(found) or 'no optimizer'}. Call model.compile(optimizer) first, in a loop of "
            "your own too, and take model.optimizer there; or keep yours where it is found, in an "
            "attribute of the model: model.my_optimizer = optimizer."
        )


def _follow(state: KernelState, optimizer: keras.optimizers.Optimizer | None) -> bool:
    """Divides the loss scale out of a kernel's gradients. Whether a traced step does otherwise."""
    scales = optimizer is not None and _scales(optimizer)
    return state.quantized.follow_loss_scale(optimizer if scales else None)


def _scales(optimizer: keras.optimizers.Optimizer) -> bool:
    one = tf.ones(())
    return optimizer.scale_loss(one) is not one


def _uses(state: KernelState) -> float:
    return state.quantized.accumulated().uses_seen


def _matters(state: KernelState) -> bool:
    """Whether a kernel's decisions depend on what an optimizer holds."""
    learned = state.quantized.config.scale == "learned"
    return state.is_open and (learned or state.layer.compute_dtype == "float16")


def _names(optimizers: Sequence[keras.optimizers.Optimizer]) -> str:
    steps = [keras_optimizers.progress(one)[0] for one in optimizers]
    told = [
        f"'{one.name}' ({'trains' if taken else 'has taken no step'})"
        for one, taken in zip(optimizers, steps, strict=True)
    ]
    return ", ".join(told)
