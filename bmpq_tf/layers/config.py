"""How a layer's kernels are quantized: plain data that lies in the layer's config."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from bmpq_tf.arguments import check_known, plain, whole
from bmpq_tf.arithmetic.quantizers import LARGEST_BITS, SMALLEST_BITS, TWO_BIT_LEVELS
from bmpq_tf.arithmetic.scales import GRANULARITIES, RULES, STARTS

# 2: activation_bits and input_bits, which a file of version 1 does not have. 3: initial_scale,
# normalise_kernels, and "joint". 4: track_oscillations. 5: one variable of sums. 6: kernels are
# normalised by channel whatever the granularity. 7: end. 8: two_bit_levels.
FORMAT_VERSION = 8
SCALES = (*RULES, "learned")
TRACKED = (True, False, "joint")
ENDS = (None, "small", "large")
ACTIVATION_BITS = (16, 8, 4, 2)


def checked_candidates(candidate_bits, where: str = "") -> tuple[int, ...]:
    """Returns the candidate widths sorted and without repeats.

    Raises:
        ValueError: nothing in it, something that is no integer, or a width outside 2 to 8. `where`
            names the layer.
    """
    of = f" for '{where}'" if where else ""
    hint = f"Give integers from {SMALLEST_BITS} to {LARGEST_BITS}, such as (2, 4, 8)."
    if (width := whole(candidate_bits)) is not None:
        candidate_bits = (width,)
    if isinstance(candidate_bits, (str, Mapping)) or not isinstance(candidate_bits, Iterable):
        raise ValueError(
            f"candidate_bits{of} must be a sequence of integers. Received: "
            f"candidate_bits={candidate_bits!r}. {hint}"
        )
    widths = tuple(candidate_bits)
    if not widths:
        raise ValueError(
            f"candidate_bits{of} is empty, so no layer could get a width. Received: "
            f"candidate_bits={candidate_bits!r}. {hint}"
        )
    for width in widths:
        number = whole(width)
        if number is None or not SMALLEST_BITS <= number <= LARGEST_BITS:
            raise ValueError(
                f"A candidate width{of} must be an integer from {SMALLEST_BITS} to {LARGEST_BITS}, "
                "because LiteRT's integer operators read weights of at most 8 bits. "
                f"Received: {width!r} in candidate_bits={candidate_bits!r}. {hint}"
            )
    return tuple(sorted({int(whole(width) or 0) for width in widths}))


def checked_activation_bits(value, name: str = "activation_bits") -> int | None:
    """Returns a width of activations, `None` for float.

    Raises:
        ValueError: it is none of `None`, 16, 8, 4 and 2.
    """
    bits = whole(value)
    if value is not None and bits not in ACTIVATION_BITS:
        raise ValueError(f"{name} must be None (float), 16, 8, 4 or 2. Received: {name}={value!r}.")
    return bits


@dataclasses.dataclass(frozen=True)
class QuantizerSettings:
    """What a quantizer of a kernel can be told, for one layer or for a whole model.

    Attributes:
        candidate_bits: the widths that the allocation may choose from, 2 to 8; training starts at
            the widest.
        scale: `"learned"` (LSQ), `"statistical"` or `"max_abs"` (`bmpq_tf.arithmetic.scales`).
        granularity: `"tensor"`, one scale for the kernel, or `"channel"`, one per output channel.
        track_sensitivity: whether training accumulates bit gradients; `"joint"` also `|g|` of every
            single weight, which takes as much memory as the kernel.
        activation_bits: the width that activations are rounded to: 16, 8, 4 or 2; `None` leaves
            them float.
        initial_scale: where a learned scale starts whenever the width changes: `"statistical"`, or
            `"mse"`, the smallest squared error.
        normalise_kernels: quantize `w - mean(w)` with the scales `std(w)·S`, mean and deviation of
            each channel (`bmpq_tf.arithmetic.normalisation`).
        track_oscillations: watch for weights that keep jumping between two integers, for
            `FreezeOscillations`; takes four times the kernel's memory.
        two_bit_levels: what 2 bits stand for: `"twos_complement"`, -2, -1, 0 and 1 steps; or
            `"symmetric"`, -3, -1, 1 and 3 half steps. Files for microcontrollers hold either in 2
            bits, integer files in 8; LiteRT's weight-only files hold symmetric ones in 4.

    Raises:
        ValueError: a field is not understood, or two do not go together.
    """

    candidate_bits: tuple[int, ...] = (2, 4, 8)
    scale: str = "learned"
    granularity: str = "tensor"
    track_sensitivity: bool | str = True
    activation_bits: int | None = None
    initial_scale: str = "statistical"
    normalise_kernels: bool = False
    track_oscillations: bool = False
    two_bit_levels: str = "twos_complement"

    def __post_init__(self):
        object.__setattr__(self, "candidate_bits", checked_candidates(self.candidate_bits))
        choices = {
            "scale": SCALES,
            "granularity": GRANULARITIES,
            "track_sensitivity": TRACKED,
            "initial_scale": tuple(STARTS),
            "two_bit_levels": TWO_BIT_LEVELS,
        }
        switches = dict.fromkeys(("normalise_kernels", "track_oscillations"), (True, False))
        for name, known in {**choices, **switches}.items():
            value = plain(getattr(self, name))
            check_known(name, value, known)
            # 1 counts as True; a file is to say which it was.
            object.__setattr__(self, name, known[known.index(value)])
        if self.initial_scale != "statistical" and self.scale != "learned":
            raise ValueError(
                f"Only learned scales have a start. Received: initial_scale={self.initial_scale!r} "
                f"with scale={self.scale!r}. "
                'Take scale="learned", or leave initial_scale out.'
            )
        object.__setattr__(self, "activation_bits", checked_activation_bits(self.activation_bits))


@dataclasses.dataclass(frozen=True)
class QuantizerConfig(QuantizerSettings):
    """What one quantized layer is told about its kernels and its activations.

    Plain data in the layer's config.

    `activation_bits` is the width that the layer's output is rounded to if its own activation is a
    ReLU.

    Attributes:
        pinned: the one candidate is fixed by decision (first and last layers), not open to the
            allocation.
        end: for an end of the model that `quantize_model(pin="auto")` decided on: `"small"`, so
            pinned, or `"large"`, so with candidates from 4 bits up; `None` for any other layer.
        input_bits: the width that the layer rounds its input to; `None` takes the input as it
            comes.

    Example:
        >>> config = bmpq_tf.layers.QuantizerConfig(candidate_bits=(4, 8), granularity="channel")
        >>> layer = bmpq_tf.layers.QuantDense(3, quantizer=config)
        >>> layer.get_config()["quantizer"]["candidate_bits"]
        [4, 8]
    """

    pinned: bool = False
    input_bits: int | None = None
    end: str | None = None

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "pinned", bool(self.pinned))
        if self.pinned and len(self.candidate_bits) > 1:
            raise ValueError(
                "A pinned layer has one width, such as candidate_bits=(8,). Received: "
                f"candidate_bits={self.candidate_bits}, pinned=True."
            )
        if self.end not in ENDS or (self.end == "small" and not self.pinned):
            raise ValueError(
                "end is 'small' for a layer that is pinned, 'large' or None. Received: "
                f"end={self.end!r}, pinned={self.pinned}."
            )
        object.__setattr__(
            self, "input_bits", checked_activation_bits(self.input_bits, "input_bits")
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for a layer's config, with the version of this format."""
        return {
            **dataclasses.asdict(self),
            "candidate_bits": list(self.candidate_bits),
            "version": FORMAT_VERSION,
        }

    @classmethod
    def of(cls, value: "QuantizerConfig | Mapping[str, Any] | None") -> "QuantizerConfig":
        """Reads what `to_dict` gave; `None` gives the defaults.

        Raises:
            ValueError: the data was written by a newer version, has fields that this one does not
                know, or means what it no longer does.
        """
        if value is None:
            return cls()
        if isinstance(value, QuantizerConfig):
            return value
        fields: dict[str, Any] = {**value}
        version = fields.pop("version", FORMAT_VERSION)
        unknown = sorted(set(fields) - {field.name for field in dataclasses.fields(cls)})
        if version > FORMAT_VERSION or unknown:
            raise ValueError(
                "This quantizer config was not written for this bmpq_tf (format "
                f"{FORMAT_VERSION}). "
                f"Received: version={version}, unknown fields {unknown}. Install the newer bmpq_tf "
                "that saved it."
            )
        if version < 8:
            fields.setdefault("two_bit_levels", TWO_BIT_LEVELS[0])
        if (
            version < 6
            and fields.get("normalise_kernels")
            and fields.get("granularity") == "tensor"
        ):
            raise ValueError(
                "This model's kernels were normalised as a whole, and this bmpq_tf normalises each "
                "channel: it would answer otherwise. "
                f"Received: version={version}, normalise_kernels=True, granularity='tensor'. Train "
                "it again, or load it with the "
                "bmpq_tf that saved it."
            )
        return cls(**fields)
