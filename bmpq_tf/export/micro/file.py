"""From an int8 file to the smallest one that TFLM runs."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from bmpq_tf.export.kernels.packing import StoredKernel
from bmpq_tf.export.kernels.storage import Container
from bmpq_tf.export.micro import minimal, packing
from bmpq_tf.export.micro.forms import Packed, decodes_at, smallest
from bmpq_tf.export.tflite import cleanup, flatbuffer


def packed(
    integer_content: bytes, widths: Mapping[str, int], metadata: dict[str, bytes]
) -> tuple[bytes, dict[str, Packed]]:
    """Returns the file's bytes, and how each kernel lies in it, by the names of its tensors.

    Args:
        integer_content: a file of int8 kernels and activations.
        widths: of the kernels that were trained at some, by the names of their tensors.
        metadata: named buffers to give it.
    """
    from bmpq_tf._compat import tflite_micro

    model = flatbuffer.parse(integer_content)
    minimal.equal_scales_as_one(model)
    forms = {
        name: smallest(kernel, decodes_at(kernel, widths.get(name)))
        for name, kernel in packing.kernels(model).items()
    }
    packing.pack(model, forms)
    minimal.strip(model)
    cleanup.clean_up(model, metadata)
    return tflite_micro.aligned(flatbuffer.serialised(model)), forms


def as_packed(kernel: StoredKernel, bits: int, form: Packed) -> StoredKernel:
    """Returns a kernel with the container that it has in the packed file.

    Args:
        kernel: as the int8 file holds it.
        bits: the width that it was trained at.
        form: as `packed` chose it.
    """
    # Levels of a width are at most 3 half steps or 2^(bits - 1).
    is_rounded = np.abs(kernel.integers.astype(int)).max() > max(3, 2 ** (bits - 1))
    note = kernel.container.note if form.form == "int8" and form.bits == bits else ""
    if form.form == "int8" and is_rounded:
        note = kernel.container.note
    elif form.form == "int8" and bits < form.bits:
        note = "in int8, which takes less than a table and its DECODE"
    elif form.form == "int4" and bits < form.bits:
        note = "in int4, which takes less than a table and its DECODE"
    elif bits < form.bits:
        note = "one level more, since BatchNorm turned the signs of some channels"
    return dataclasses.replace(kernel, container=Container(form.bits, "static", note))
