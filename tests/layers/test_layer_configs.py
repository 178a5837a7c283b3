"""What quantized layers keep, and which configurations they refuse."""

import keras
import pytest
from layer_examples import ENTRIES, kernels_of

from bmpq_tf.layers import QuantizerConfig


@pytest.mark.parametrize("widths", [(), (1, 4), (9,), (2.5,), "48", None, (True,)])
def test_candidate_widths_are_checked(widths):
    with pytest.raises(ValueError, match=r"Received: .*Give integers from 2 to 8"):
        QuantizerConfig(candidate_bits=widths)


def test_a_pinned_layer_has_one_width():
    with pytest.raises(
        ValueError, match=r"one width.*Received: candidate_bits=\(2, 4, 8\), pinned=True"
    ):
        QuantizerConfig(pinned=True)


def test_a_config_that_meant_something_else_is_refused():
    of_the_whole = {**QuantizerConfig(normalise_kernels=True).to_dict(), "version": 5}
    with pytest.raises(
        ValueError,
        match=(
            r"would answer otherwise. Received: version=5, normalise_kernels=True, "
            r"granularity='tensor'. Train it"
        ),
    ):
        QuantizerConfig.of(of_the_whole)
    QuantizerConfig.of({**of_the_whole, "granularity": "channel"})
    QuantizerConfig.of({**of_the_whole, "version": 6})


def test_a_config_of_a_newer_version_is_refused():
    with pytest.raises(ValueError, match="Install the newer bmpq_tf"):
        QuantizerConfig.of({**QuantizerConfig().to_dict(), "version": 99})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"kernel_constraint": "non_neg"},
            r"Layer 'odd' cannot keep its quantized kernel to a constraint.*Received: .*NonNeg",
        ),
        (
            {"dtype": "float64"},
            r"Layer 'odd' cannot be quantized: its weights are float64.*Received: dtype='float64'",
        ),
        ({"dtype": "int8_from_float32"}, "has Keras quantize the weights already"),
    ],
)
def test_what_a_quantized_layer_cannot_keep_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ENTRIES["Dense"].quantized_class(3, name="odd", **arguments).build((None, 4))


def test_lora_on_a_quantized_layer_is_refused():
    layer = ENTRIES["Dense"].quantized_class(3, name="odd")
    layer.build((None, 4))
    with pytest.raises(
        NotImplementedError, match="Layer 'odd' is quantized and takes no LoRA weights"
    ):
        layer.enable_lora(2)


def test_exceptions_inside_a_composite_are_kept_and_names_are_checked():
    attention = ENTRIES["MultiHeadAttention"].quantized_class
    layer = attention(
        1,
        2,
        quantizer={
            "candidate_bits": [4],
            "sublayers": {"key": None, "value": {"candidate_bits": [2]}},
        },
    )
    layer = attention.from_config(layer.get_config())
    inputs = keras.Input((3, 4))
    layer(inputs, inputs)
    assert {part.name: quantizer.width for part, _, quantizer in kernels_of(layer)} == {
        "query": 4,
        "value": 2,
        "attention_output": 4,
    }
    with pytest.raises(ValueError, match=r"holds no layers called \['quer'\].*Inside are .*query"):
        attention(1, 2, quantizer={"sublayers": {"quer": None}})(inputs, inputs)


def test_a_built_layer_is_not_silently_started_anew():
    dense = keras.layers.Dense(3, name="trained")
    dense.build((None, 4))
    with pytest.raises(ValueError, match=r"'trained' \(Dense\) is built already"):
        ENTRIES["TimeDistributed"].quantized_class(dense)
