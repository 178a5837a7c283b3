"""Choosing layers by name, class or predicate, or as they are."""

from collections.abc import Callable

import keras

from bmpq_tf._compat import keras as keras_compat

Layer = keras.layers.Layer
Selector = str | type | Layer | Callable[[Layer], bool]


def as_list(selectors) -> list:
    """Returns one selector, several or none as a list."""
    if selectors is None:
        return []
    if isinstance(selectors, (str, type)) or callable(selectors):
        return [selectors]
    return list(selectors)


def matcher(selectors, parts: list[Layer], argument: str) -> Callable[[Layer], bool]:
    """Turns names, classes, layers and predicates into one predicate.

    A name or a layer that the model does not have is an error.
    """
    listed = as_list(selectors)
    names = {layer.name for layer in parts}
    for selector in listed:
        if isinstance(selector, str) and selector not in names:
            raise ValueError(
                f"No layer is called {selector!r}. Received: {argument}={selectors!r}. Layers: "
                f"{', '.join(sorted(names))}."
            )
        if isinstance(selector, Layer) and not any(
            part is layer for part in keras_compat.flattened_layers(selector) for layer in parts
        ):
            raise ValueError(
                f"Layer '{selector.name}' is not in the model. Received: {argument}={selectors!r}. "
                f"Layers: {', '.join(sorted(names))}."
            )
        if not isinstance(selector, str) and not callable(selector):
            raise ValueError(
                f"{argument} takes layers, their names, classes and predicates. Received: "
                f"{selector!r} in {argument}={selectors!r}."
            )

    def matches(layer: Layer) -> bool:
        for selector in listed:
            if isinstance(selector, str):
                hit = layer.name == selector
            elif isinstance(selector, type):
                hit = isinstance(layer, selector)
            elif isinstance(selector, Layer):
                hit = any(layer is part for part in keras_compat.flattened_layers(selector))
            else:
                hit = not isinstance(layer, keras.Model) and bool(selector(layer))
            if hit:
                return True
        return False

    return matches


def covered(selectors, parts: list[Layer], argument: str) -> set[int]:
    """Returns the ids of the layers that match, and of all layers inside them."""
    matches = matcher(selectors, parts, argument)
    return {
        id(part)
        for layer in parts
        if matches(layer)
        for part in keras_compat.flattened_layers(layer)
    }
