"""Does the file hold the integers that were trained?"""

import numpy as np

from bmpq_tf.export.errors import ExportError
from bmpq_tf.export.kernels.packing import StoredKernel
from bmpq_tf.export.tflite import flatbuffer

# An embedding's table beside activations of 16 bits has as many.
_BITS = {**flatbuffer.PACKED_BITS, flatbuffer.INT16: 16}


def read_back(content: bytes, stored: dict[str, list[StoredKernel]]) -> int:
    """Checks type, integers, scales and zero points of every packed buffer in the file.

    Returns the buffers' bytes.
    """
    model = flatbuffer.parse(content)
    tensors = {
        flatbuffer.tensor_name(tensor): tensor
        for subgraph in model.subgraphs
        for tensor in subgraph.tensors
    }
    buffers = {}
    for path, kernels in stored.items():
        for kernel in kernels:
            tensor = tensors[kernel.name]
            found = flatbuffer.constant(model, tensor)
            same = (
                _BITS.get(tensor.type) == kernel.bits
                and found is not None
                and np.array_equal(found, kernel.integers)
                and np.array_equal(np.asarray(tensor.quantization.scale, np.float32), kernel.scales)
                and np.array_equal(
                    np.asarray(tensor.quantization.zeroPoint, np.int64), kernel.zero_points
                )
            )
            if not same:
                raise ExportError(
                    f"The file does not hold the integers of kernel '{path}' (tensor "
                    f"'{kernel.name}'). Nothing was written. Please report this."
                )
            buffers[tensor.buffer] = len(model.buffers[tensor.buffer].data)
    return sum(buffers.values())
