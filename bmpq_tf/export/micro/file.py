"""From an int8 file to the smallest one that TFLM runs."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from bmpq_tf.export.kernels.match import Match
from bmpq_tf.export.kernels.packing import StoredKernel
from bmpq_tf.export.kernels.storage import Container
from bmpq_tf.export.micro import minimal, packing
from bmpq_tf.export.micro.forms import Kernel, Packed, decodes_at, kernel_of, smallest
from bmpq_tf.export.tflite import cleanup, flatbuffer


def in_int4(model, stored: Sequence[tuple[Match, StoredKernel]]) -> set[str]:
    """Returns the tensors of the kernels that will lie in the packed file in int4.

    Args:
        model: the parsed float model.
        stored: its kernels, of trained integers.
    """
    found = set()
    for match, one in stored:
        subgraph = model.subgraphs[match.subgraph]
        readers = flatbuffer.consumers(subgraph, match.tensor)
        builtins = [flatbuffer.builtin_of(model, subgraph.operators[index]) for index in readers]
        kernel = kernel_of(one.integers, one.axis, builtins, len(set(one.scales)))
        if _form(kernel, match.kernel.bits).form == "int4":
            found.add(one.name)
    return found


def packed(
    integer_content: bytes,
    stored: Sequence[tuple[Match, StoredKernel]],
    metadata: dict[str, bytes],
) -> tuple[bytes, dict[str, Packed]]:
    """Returns the file's bytes, and how each kernel lies in it, by the names of its tensors.

    Args:
        integer_content: a file of int8 kernels and activations.
        stored: its kernels that were trained at some width.
        metadata: named buffers to give it.
    """
    from bmpq_tf._compat import tflite_micro

    model = flatbuffer.parse(integer_content)
    minimal.equal_scales_as_one(model)
    widths = {kernel.name: match.kernel.bits for match, kernel in stored}
    kernels = packing.kernels(model, {kernel.name: kernel.factor for _, kernel in stored})
    forms = {name: _form(kernel, widths.get(name)) for name, kernel in kernels.items()}
    packing.pack(model, forms)
    minimal.strip(model)
    cleanup.clean_up(model, metadata)
    return tflite_micro.aligned(flatbuffer.serialised(model)), forms


def _form(kernel: Kernel, bits: int | None) -> Packed:
    return smallest(kernel, decodes_at(kernel, bits))


def as_packed(kernel: StoredKernel, bits: int, form: Packed) -> StoredKernel:
    """Returns a kernel with the container that it has in the packed file.

    Args:
        kernel: as the int8 file holds it.
        bits: the width that it was trained at.
        form: as `packed` chose it.
    """
    # Levels of a width are at most 3 half steps or 2^(bits - 1).
    largest = np.abs(kernel.integers.astype(int)).max() // kernel.factor
    is_rounded = largest > max(3, 2 ** (bits - 1))
    note = kernel.container.note if form.form == "int8" and form.bits == bits else ""
    if form.form == "int8" and is_rounded:
        note = kernel.container.note
    elif form.form == "int8" and kernel.too_coarse_in_int4:
        note = "in int8, since int4 would round a bias too coarsely"
    elif form.form == "int8" and bits < form.bits:
        note = "in int8, which takes less than a table and its DECODE"
    elif form.form == "int4" and bits < form.bits:
        note = "in int4, which takes less than a table and its DECODE"
    elif bits < form.bits:
        note = "one level more, since BatchNorm turned the signs of some channels"
    return dataclasses.replace(kernel, container=Container(form.bits, "static", note))
