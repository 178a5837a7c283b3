"""The mixin for layers that hold layers.

Those that a registry entry knows are quantized as they are put in place.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import keras

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.layers.config import QuantizerConfig


@dataclasses.dataclass(frozen=True)
class CompositeConfig:
    """What a composite layer is told about the kernels of the layers inside.

    Attributes:
        default: the `quantizer` of every layer inside that is not named.
        sublayers: exceptions by the inner layer's name: its `quantizer` as plain data, or `None`
            where it stays float.
    """

    default: QuantizerConfig = dataclasses.field(default_factory=QuantizerConfig)
    sublayers: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the default's plain data, with the exceptions as `sublayers`."""
        return {**self.default.to_dict(), "sublayers": dict(self.sublayers)}

    @classmethod
    def of(
        cls, value: "CompositeConfig | QuantizerConfig | Mapping[str, Any] | None"
    ) -> "CompositeConfig":
        """Reads what `to_dict` gave, or a `QuantizerConfig` for all layers inside.

        `None` gives the defaults.

        Raises:
            ValueError: as `QuantizerConfig.of`.
        """
        if isinstance(value, CompositeConfig):
            return value
        if isinstance(value, Mapping):
            fields = dict(value)
            sublayers = fields.pop("sublayers", None) or {}
            plain = {
                name: None if quantizer is None else cls._plain(quantizer)
                for name, quantizer in sublayers.items()
            }
            return cls(QuantizerConfig.of(fields), plain)
        return cls(QuantizerConfig.of(value))

    @classmethod
    def _plain(cls, quantizer: Any) -> dict[str, Any]:
        """An exception as plain data, checked; a layer inside may hold layers itself."""
        composite = isinstance(quantizer, cls) or (
            isinstance(quantizer, Mapping) and "sublayers" in quantizer
        )
        # The wider type: `composite` says which of the two it is.
        plain: Any = quantizer
        return (cls.of(plain) if composite else QuantizerConfig.of(plain)).to_dict()

    def of_sublayer(self, name: str) -> Any | None:
        """Returns the `quantizer` of the inner layer of this name; `None` if it stays float."""
        return self.sublayers.get(name, self.default.to_dict())


# A mixin: Keras's class comes behind it.
_Layer = keras.layers.Layer if TYPE_CHECKING else object


class QuantizedComposite(_Layer):
    """Gives a Keras layer that holds layers their quantized twins in place of them.

    Keras's class makes its sublayers itself, in `__init__` or in `build`, or is handed one; here
    whatever known layer is about to become an attribute is replaced by its twin, which Keras then
    builds and calls. Nothing of Keras's own code is repeated.

    Constructor, config and call stay the Keras class's own, with one more keyword: `quantizer`, a
    `QuantizerConfig` for every layer inside or the plain dict of one; `"sublayers"` in the dict
    names exceptions (`CompositeConfig`). A `call` reads each kernel once, however often a loop
    inside uses it (`kernels_read_once`).
    """

    # Set by `register`: how a plain layer and its `quantizer` become its twin, and the keys of the
    # config that hold layers.
    twin_of: Callable[[keras.layers.Layer, Any], keras.layers.Layer | None]
    held: Mapping[str, str] = {}

    def __init__(self, *args, quantizer=None, **kwargs):
        # Some classes make their sublayers in their own __init__.
        self.quantizer = CompositeConfig.of(quantizer)
        super().__init__(*args, **kwargs)

    def __setattr__(self, name, value):
        if isinstance(value, keras.layers.Layer):
            value = self._quantized(value)
        elif isinstance(value, (list, tuple)) and any(
            isinstance(part, keras.layers.Layer) for part in value
        ):
            value = type(value)(self._quantized(part) for part in value)
        super().__setattr__(name, value)

    def _quantized(self, layer):
        quantizer = (
            self.quantizer.of_sublayer(layer.name)
            if isinstance(layer, keras.layers.Layer)
            else None
        )
        return layer if quantizer is None else type(self).twin_of(layer, quantizer) or layer

    def check_sublayers(self) -> None:
        """Raises ValueError if an exception names no layer inside.

        Called when the layer is built.
        """
        inside = sorted({layer.name for layer in keras_compat.layers_inside(self)})
        unknown = sorted(set(self.quantizer.sublayers) - set(inside))
        if unknown:
            raise ValueError(
                f"Layer '{self.name}' holds no layers called {unknown}. Received: "
                f"sublayers={unknown}. Inside are {', '.join(inside)}."
            )

    def get_config(self):
        return {**super().get_config(), "quantizer": self.quantizer.to_dict()}

    @classmethod
    def from_config(cls, config, *args, **kwargs):
        # Built here and not by its holder, a layer would lose the holder's name from its kernels'
        # paths.
        held = {key: _unbuilt(config[key]) for key in cls.held if key in config}
        return super().from_config({**config, **held}, *args, **kwargs)


def _unbuilt(serialized):
    if isinstance(serialized, (list, tuple)):
        return [_unbuilt(part) for part in serialized]
    return {key: value for key, value in serialized.items() if key != "build_config"}
