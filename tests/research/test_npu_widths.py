"""What tools/npu_widths.py measures and prints."""

import dataclasses

import keras
import pytest

from bmpq_research.npu.widths import (
    KernelSeen,
    Seen,
    centred_error,
    markdown,
    reference,
    seen,
    shares,
    uniform,
)
from bmpq_tf import quantize_model


@pytest.mark.quick
def test_a_run_is_a_width_or_a_budget():
    assert uniform("4 bits") == 4
    assert uniform("12x") is None
    assert uniform("2.5 bits") is None
    with pytest.raises(ValueError, match=r"rounded to one width\. Received: '12x'"):
        reference("resnet8", "none.h5", "12x")


@pytest.mark.quick
def test_the_table_sets_what_was_predicted_beside_what_came():
    kernels = (
        KernelSeen("a", 1000, 4, predicted=550, encoded=500, cycles=10),
        KernelSeen("b", 600, 8, predicted=650, encoded=620, cycles=20),
    )
    row = Seen("small", "8x", "ethos-u55-128", kernels, 2000, 1500, 880, 300, 1.5e-4, 0.985)
    assert row.excess == pytest.approx(0.04)
    assert markdown([row]).splitlines()[-1] == (
        "| small | 8x | 5.60 | 1,120 | 1,200 | +4.0 % | 1,500 | 2,000 | 0.150 | 98.5 % |"
    )
    assert Seen.of(row.to_dict()) == row
    other = dataclasses.replace(row, kernels=(dataclasses.replace(kernels[0], encoded=380),))
    share = shares([row, other])
    assert share == {4: 0.8, 8: 620 / 650}
    assert centred_error(row, share) == pytest.approx((440 - 500) / 2000)


@pytest.mark.apart
def test_kernels_are_paired_with_their_names_and_widths():
    pytest.importorskip("ethosu")
    image = keras.Input((6, 6, 8), name="image")
    x = keras.layers.Conv2D(16, 3, activation="relu", name="conv")(image)
    x = keras.layers.Dense(4, name="head")(keras.layers.Flatten(name="flatten")(x))
    model = quantize_model(keras.Model(image, x, name="small"), pin=None, overrides={"head": 4})
    row = seen(model, "small", "as it is", "ethos-u55-128")
    assert [(one.path, one.weights, one.bits) for one in row.kernels] == [
        ("conv/kernel", 1152, 8),
        ("head/kernel", 1024, 4),
    ]
    assert all(0 < one.encoded <= one.predicted for one in row.kernels)
    assert row.beside_bytes == row.file_bytes - row.encoded
