"""How a whole model is quantized.

What `quantize_model` makes each layer's `QuantizerConfig` from.
"""

import dataclasses

from bmpq_tf.layers.config import QuantizerConfig, QuantizerSettings, checked_candidates

# The narrowest candidate of an end of the model that is too large to pin (METHOD.md).
LEAST_AT_ENDS = 4


@dataclasses.dataclass(frozen=True)
class QuantizationConfig(QuantizerSettings):
    """How `quantize_model` quantizes every layer that no `overrides=` names.

    `activation_bits` rounds the output of every ReLU, and the input of every quantized layer that
    reads anything else.

    Attributes:
        pinned_bits: the width of pinned layers.

    Example:
        >>> config = bmpq_tf.QuantizationConfig(granularity="channel", pinned_bits=4)
        >>> model = bmpq_tf.quantize_model(float_model, config=config)
        >>> [row.bits for row in bmpq_tf.kernel_table(model)]
        [4, 8]
    """

    pinned_bits: int = 8

    def __post_init__(self):
        super().__post_init__()
        width, *more = checked_candidates(self.pinned_bits, "pinned layers")
        if more:
            raise ValueError(
                "pinned_bits is one width, from 2 to 8. Received: "
                f"pinned_bits={self.pinned_bits!r}. Give candidates in overrides=."
            )
        object.__setattr__(self, "pinned_bits", width)

    def of_layer(
        self,
        candidate_bits: tuple[int, ...] | None,
        pinned: bool,
        end: str | None,
        activations: dict[str, int | None],
    ) -> QuantizerConfig:
        """Returns one layer's config.

        Args:
            candidate_bits: the layer's own, in place of these.
            pinned: whether it is held at `pinned_bits`; its own candidates win.
            end: what `pin="auto"` made of it: `"small"`, `"large"`, or `None`.
            activations: its `activation_bits` and `input_bits`.
        """
        shared = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(QuantizerSettings)
        }
        is_pinned = pinned and candidate_bits is None
        widths = candidate_bits or ((self.pinned_bits,) if is_pinned else self.candidate_bits)
        if end == "large":
            widths = self._of_large_ends()
        own = {"candidate_bits": widths, "pinned": is_pinned, "end": end}
        return QuantizerConfig(**{**shared, **own, **activations})

    def _of_large_ends(self) -> tuple[int, ...]:
        """The candidates from 4 bits up, or from `pinned_bits` where that is less; the widest where
        all are narrower.
        """
        least = min(LEAST_AT_ENDS, self.pinned_bits)
        return tuple(bits for bits in self.candidate_bits if bits >= least) or (
            self.candidate_bits[-1],
        )
