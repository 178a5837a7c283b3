"""Recurrent layers as loops that TFLite has builtins for.

Keras's own loops keep their steps in lists of tensors, which convert for a batch of known size
only. Here a loop carries its states and one tensor of all outputs, so that it becomes one `WHILE`,
whatever the number of steps: the file holds each kernel once, in the loop's body.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf._compat.xla import with_slice
from bmpq_tf.export.converter.calls import calls_replaced
from bmpq_tf.model import keras_graph


@contextlib.contextmanager
def as_while(model: keras.Model) -> Iterator[None]:
    """Within it, recurrent layers loop in a way that converts.

    Those whose class has a loop of its own are called step by step, as `unrolled` does.
    """
    looped = [layer for layer in _recurrent(model) if has_keras_loop(layer)]
    try:
        for layer in looped:
            layer.inner_loop = _loop(layer)
        with unrolled(model):
            yield
    finally:
        for layer in looped:
            del layer.inner_loop


@contextlib.contextmanager
def unrolled(model: keras.Model) -> Iterator[None]:
    """Within it, recurrent layers are called step by step.

    So is what loops in a way of its own, or where a runtime has no loops.
    """
    before = {layer: (layer.unroll, layer.zero_output_for_mask) for layer in _recurrent(model)}
    # Step by step, Keras zeroes the masked outputs of a layer that goes backwards in the order of
    # those that go forwards.
    backwards = [
        layer
        for layer in before
        if layer.go_backwards
        and layer.return_sequences
        and layer.zero_output_for_mask
        and "inner_loop" not in vars(layer)
    ]
    with calls_replaced(backwards, lambda _, call: _zeroed_backwards(call)):
        try:
            for layer in before:
                layer.unroll = "inner_loop" not in vars(layer)
            for layer in backwards:
                layer.zero_output_for_mask = False
            yield
        finally:
            for layer, (unroll, zeroes) in before.items():
                layer.unroll, layer.zero_output_for_mask = unroll, zeroes


def _recurrent(model: keras.Model) -> list[Any]:
    return [layer for layer in keras_graph.sublayers(model) if isinstance(layer, keras.layers.RNN)]


def has_keras_loop(layer) -> bool:
    """Whether a recurrent layer loops as Keras does, and not in a way of its class's own."""
    return keras_compat.is_from_keras(type(layer).inner_loop)


def _loop(layer) -> Callable:
    """What stands for a layer's `inner_loop`: the same answers, without lists of tensors."""

    def inner_loop(sequences, initial_state, mask, training=False):
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        states = (
            list(initial_state) if isinstance(initial_state, (list, tuple)) else [initial_state]
        )
        body = _Body(layer, sequences, states, mask)
        start = (tf.constant(0), body.empty(), body.no_output(), *keras.tree.flatten(states))
        _, outputs, last, *flat = tf.while_loop(lambda step, *_: step < body.steps, body, start)
        if layer.zero_output_for_mask and mask is not None:
            last = tf.where(body.mask_of(body.steps - 1, last), last, tf.zeros((), last.dtype))
        outputs = _swapped(outputs) if layer.return_sequences else last[:, None]
        return last, outputs, keras.tree.pack_sequence_as(states, flat)

    return inner_loop


class _Body:
    """One step of a recurrent layer.

    Args:
        layer: the layer.
        sequences: `(batch, steps, ...)`.
        states: the first ones, as the cell takes them.
        mask: `(batch, steps)`, or `None`.
    """

    def __init__(self, layer, sequences, states, mask):
        self._layer, self._states = layer, states
        self._by_time = _swapped(sequences)
        self._mask = None if mask is None else _swapped(tf.cast(mask, tf.bool))
        self.steps = sequences.shape[1] or tf.shape(sequences)[1]
        # Called for its shape alone, which no cell tells by itself; the converter drops it.
        first, _ = self._cell(self._by_time[0], states)
        self._batch, self._shape, self._dtype = tf.shape(sequences)[0], first.shape, first.dtype

    def empty(self):
        """All outputs before the first step; nothing where only the last one is asked for."""
        steps = self.steps if self._layer.return_sequences else 0
        return tf.zeros((steps, self._size, *self._shape[1:]), self._dtype)

    def no_output(self):
        """The output before the first step."""
        return tf.zeros((self._size, *self._shape[1:]), self._dtype)

    def mask_of(self, step, like):
        """Whether each example has this step, counted as the layer goes, in the shape of `like`."""
        masked = tf.gather(self._mask, self._place(step))
        axes = tf.concat([tf.shape(masked)[:1], tf.ones(len(like.shape) - 1, tf.int32)], 0)
        return tf.reshape(masked, axes)

    def __call__(self, step, outputs, last, *flat):
        states = keras.tree.pack_sequence_as(self._states, flat)
        output, new = self._cell(tf.gather(self._by_time, self._place(step)), states)
        new = keras.tree.flatten(new)
        if self._mask is not None:
            output, *new = (
                tf.where(self.mask_of(step, old), now, old)
                for now, old in zip((output, *new), (last, *flat), strict=True)
            )
        for now, old in zip(new, flat, strict=True):
            now.set_shape(old.shape)
        output.set_shape(last.shape)
        if self._layer.return_sequences:
            start = tf.stack([step, *[0] * (len(outputs.shape) - 1)])
            outputs = with_slice(outputs, self._shown(step, output)[None], start)
        return step + 1, outputs, output, *new

    def _shown(self, step, output):
        if self._mask is None or not self._layer.zero_output_for_mask:
            return output
        return tf.where(self.mask_of(step, output), output, tf.zeros((), output.dtype))

    @property
    def _size(self):
        return self._by_time.shape[1] or self._batch

    def _cell(self, inputs, states):
        output, new = self._layer.cell(inputs, states)
        return output, new if isinstance(new, (list, tuple)) else [new]

    def _place(self, step):
        return self.steps - 1 - step if self._layer.go_backwards else step


def _swapped(tensor):
    """Batch and time in each other's place."""
    return tf.transpose(tensor, [1, 0, *range(2, len(tensor.shape))])


def _zeroed_backwards(call: Callable) -> Callable:
    @functools.wraps(call)
    def zeroed(sequences, *args, mask=None, **kwargs):
        outputs = call(sequences, *args, mask=mask, **kwargs)
        if mask is None:
            return outputs
        states = outputs[1:] if isinstance(outputs, (list, tuple)) else ()
        steps: Any = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
        flipped: Any = keras.ops.flip(keras.ops.cast(mask, steps.dtype), axis=1)
        steps = steps * flipped[..., None]
        return [steps, *states] if states else steps

    return zeroed
