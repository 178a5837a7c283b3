"""Layers that compute in another way while a model is converted."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

import keras


@contextlib.contextmanager
def calls_replaced(
    layers: Iterable[keras.layers.Layer], wrap: Callable[[keras.layers.Layer, Callable], Callable]
) -> Iterator[None]:
    """While it lasts, the `call` of each layer is what `wrap` makes of the layer and its `call`."""
    with contextlib.ExitStack() as undone:
        for layer in layers:
            layer.call = wrap(layer, layer.call)
            undone.callback(delattr, layer, "call")
        yield
