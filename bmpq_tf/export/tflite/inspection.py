"""What a `.tflite` file holds, read from the file alone: of ours and of others."""

import json
import os
import pathlib

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.errors import first_line
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.contents import Inspection, IOTensor, Signature, Weights
from bmpq_tf.export.tflite.decode import Decoded, decoded_constants

_TYPE_NAMES = {
    code: name.lower() for name, code in vars(schema.TensorType).items() if not name.startswith("_")
}
# A constant of fewer axes is a bias, a shape or a table of factors.
_KERNEL_RANK = 2
# What bmpq_tf writes into every file, and into one for a microcontroller.
_METADATA = (
    {"versions", "optimize_for", "compression", "budget", "kernels"},
    {"bmpq_tf", "bits", "budget"},
)
_HINT = "Export or download it again."


class UnreadableFileError(ValueError):
    """This is no TFLite model, or a broken one.

    Example:
        >>> size = (folder / "notes.tflite").write_text("no model")
        >>> try:
        ...     bmpq_tf.inspect_tflite(folder / "notes.tflite")
        ... except bmpq_tf.UnreadableFileError as error:
        ...     print(error)
        Not a TFLite model: the identifier 'TFL3' is missing at byte 4. ...
    """


def inspect_tflite(path: str | os.PathLike) -> Inspection:
    """Reads what a `.tflite` file holds, from the file alone: of ours and of others.

    Args:
        path: of the file.

    Returns:
        An `Inspection`: inputs and outputs, operators, weights with their stored types and the bits
            that are really used.

    Raises:
        FileNotFoundError: there is none.
        UnreadableFileError: it is no TFLite model or it is broken; says why in a line.

    Example:
        >>> report = bmpq_tf.export_tflite(model, folder / "model.tflite")
        >>> weights = bmpq_tf.inspect_tflite(report.path).weights
        >>> [(one.operator, one.shape, one.stored) for one in weights]
        [('CONV_2D', (4, 3, 3, 1), 'int8'), ('FULLY_CONNECTED', (10, 144), 'int8')]
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No such file. Received: '{path}'.")
    return inspect_content(path.read_bytes(), str(path))


def inspect_content(content: bytes, name: str = "the bytes given") -> Inspection:
    """Reads a file's bytes; raises as `inspect_tflite`."""
    try:
        model = flatbuffer.parse(content)
    except ValueError as error:
        raise UnreadableFileError(
            f"{first_line(error)} Received: '{name}', {len(content):,} bytes. {_HINT}"
        ) from error
    except Exception as error:
        raise UnreadableFileError(
            f"The file is broken: its tables point outside of it. Received: '{name}', "
            f"{len(content):,} bytes. {_HINT}"
        ) from error
    try:
        return _inspect(model, len(content))
    # A broken table can lead to an error of any class.
    except Exception as error:
        raise UnreadableFileError(
            f"The file is broken: {first_line(error)} Received: '{name}', {len(content):,} bytes. "
            f"{_HINT}"
        ) from error


def weights_by_buffer(model) -> dict[int, Weights]:
    """Returns the kernels of a parsed model, as `Inspection` has them, by their buffers."""
    weights: dict[int, Weights] = {}
    for subgraph in model.subgraphs:
        constants = flatbuffer.dequantized_constants(model, subgraph)
        decoded = decoded_constants(model, subgraph)
        for operator in subgraph.operators:
            kind = operator_name(model, operator)
            for index in (index for index in operator.inputs if index >= 0):
                if index in decoded:
                    one = _weights(model, subgraph.tensors[index], kind, decoded=decoded[index])
                    weights.setdefault(decoded[index].buffer, one)
                source = constants.get(index, index)
                tensor = subgraph.tensors[source]
                if kind != "DEQUANTIZE" and _is_kernel(model, tensor):
                    weights.setdefault(
                        tensor.buffer, _weights(model, tensor, kind, source != index)
                    )
    return weights


def _inspect(model, size: int) -> Inspection:
    operators: dict[str, int] = {}
    custom = set()
    weights = weights_by_buffer(model)
    used = {entry.buffer for entry in model.metadata or []}
    for subgraph in model.subgraphs:
        used |= {tensor.buffer for tensor in subgraph.tensors}
        for operator in subgraph.operators:
            kind = operator_name(model, operator)
            operators[kind] = operators.get(kind, 0) + 1
            if model.operatorCodes[operator.opcodeIndex].customCode:
                custom.add(kind)
    sizes = {
        number: len(buffer.data)
        for number, buffer in enumerate(model.buffers)
        if buffer.data is not None and len(buffer.data)
    }
    named = flatbuffer.metadata(model)
    return Inspection(
        bytes=size,
        signatures=_signatures(model),
        weights=tuple(weights.values()),
        operators=dict(sorted(operators.items())),
        scales=sum(
            flatbuffer.scale_count(tensor)
            for subgraph in model.subgraphs
            for tensor in subgraph.tensors
        ),
        other_constant_bytes=sum(
            bytes_ for number, bytes_ in sizes.items() if number in used and number not in weights
        ),
        orphaned_bytes=sum(bytes_ for number, bytes_ in sizes.items() if number not in used),
        custom_operators=tuple(sorted(custom)),
        metadata=_told(named[flatbuffer.METADATA]) if flatbuffer.METADATA in named else None,
    )


def _told(data: bytes) -> dict:
    told = json.loads(data)
    if not isinstance(told, dict) or not any(fields <= set(told) for fields in _METADATA):
        raise ValueError("What bmpq_tf wrote into it is not complete.")
    # What is printed and looked up by name.
    for kernel in told.get("kernels", []):
        kernel["name"], kernel["tensors"] = str(kernel["name"]), list(kernel["tensors"])
    return {**told, "versions": dict(told["versions"])} if "versions" in told else told


def _signatures(model) -> tuple[Signature, ...]:
    if not model.signatureDefs:
        main = model.subgraphs[0]
        ends = (
            tuple(_io_tensor(main, index) for index in _listed(indices))
            for indices in (main.inputs, main.outputs)
        )
        return (Signature(None, *ends),)
    return tuple(_signature(model.subgraphs[one.subgraphIndex], one) for one in model.signatureDefs)


def _signature(subgraph, signature) -> Signature:
    def named(entries, indices):
        # Converters list them by name; `getInputTensor(0)` is the graph's first.
        places = {index: place for place, index in enumerate(_listed(indices))}
        entries = sorted(
            _listed(entries), key=lambda entry: places.get(entry.tensorIndex, len(places))
        )
        return tuple(
            _io_tensor(subgraph, entry.tensorIndex, flatbuffer.text(entry.name))
            for entry in entries
        )

    key = flatbuffer.text(signature.signatureKey)
    return Signature(
        key, named(signature.inputs, subgraph.inputs), named(signature.outputs, subgraph.outputs)
    )


def _io_tensor(subgraph, index: int, name: str | None = None) -> IOTensor:
    tensor = subgraph.tensors[index]
    quantized = flatbuffer.scale_count(tensor) > 0
    return IOTensor(
        name=flatbuffer.tensor_name(tensor) if name is None else name,
        shape=tuple(int(size) for size in _listed(tensor.shapeSignature) or _listed(tensor.shape)),
        stored=_type_name(tensor),
        scale=float(tensor.quantization.scale[0]) if quantized else None,
        zero_point=int((_listed(tensor.quantization.zeroPoint) or [0])[0]) if quantized else None,
    )


def _listed(vector) -> list:
    """A flatbuffer's vector, which may be missing."""
    return [] if vector is None else list(vector)


def _type_name(tensor) -> str:
    return _TYPE_NAMES.get(tensor.type, str(tensor.type))


def _is_kernel(model, tensor) -> bool:
    numbers = tensor.type in flatbuffer.PACKED_BITS or tensor.type in (
        flatbuffer.FLOAT32,
        schema.TensorType.FLOAT16,
        schema.TensorType.UINT8,
        flatbuffer.INT16,
    )
    data = model.buffers[tensor.buffer].data
    return (
        numbers
        and data is not None
        and len(data) > 0
        and tensor.shape is not None
        and len(tensor.shape) >= _KERNEL_RANK
    )


def _weights(
    model, tensor, operator: str, dequantized: bool = False, decoded: Decoded | None = None
) -> Weights:
    values = decoded.integers if decoded else flatbuffer.constant(model, tensor)
    count = flatbuffer.scale_count(tensor)
    scales = tensor.quantization.scale if count else ()
    return Weights(
        name=flatbuffer.tensor_name(tensor),
        operator=operator,
        shape=tuple(int(size) for size in tensor.shape),
        stored=f"table of {decoded.bits} bits" if decoded else _type_name(tensor),
        bits=used_bits(values)
        if values is not None and tensor.type in flatbuffer.PACKED_BITS
        else None,
        dequantized=dequantized,
        scales=count,
        smallest_scale=float(min(scales)) if count else None,
        largest_scale=float(max(scales)) if count else None,
        bytes=len(model.buffers[(decoded or tensor).buffer].data),
    )


def used_bits(integers: np.ndarray) -> int:
    """Returns the narrowest width, from 1, that holds every value, or what is left of it where all
    are divided by what divides all: two's complement, or 2 bits of -3, -1, 1 and 3.
    """
    integers = integers // max(1, int(np.gcd.reduce(integers.ravel().astype(np.int64), initial=0)))
    if integers.size and np.isin(integers, (-3, -1, 1, 3)).all():
        return 2 if np.abs(integers).max() == 3 else 1 + bool((integers == 1).any())
    low, high = int(integers.min(initial=0)), int(integers.max(initial=0))
    return next(
        bits for bits in range(1, 65) if -(2 ** (bits - 1)) <= low and high < 2 ** (bits - 1)
    )


def operator_name(model, operator) -> str:
    """Returns a builtin's name, or a custom operator's own."""
    code = model.operatorCodes[operator.opcodeIndex]
    if code.customCode:
        return flatbuffer.text(code.customCode)
    return flatbuffer.schema_name(flatbuffer.builtin_of(model, operator))
