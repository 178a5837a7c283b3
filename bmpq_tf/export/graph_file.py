"""Reading and editing TFLite flatbuffers, through LiteRT's own object API."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils as fb

FLOAT32 = fb.TensorType.FLOAT32
_NUMPY = {
    fb.TensorType.FLOAT32: np.float32,
    fb.TensorType.FLOAT16: np.float16,
    fb.TensorType.INT64: np.int64,
    fb.TensorType.INT32: np.int32,
    fb.TensorType.INT16: np.int16,
    fb.TensorType.INT8: np.int8,
    fb.TensorType.UINT8: np.uint8,
    fb.TensorType.BOOL: np.bool_,
}
PACKED_BITS = {fb.TensorType.INT8: 8, fb.TensorType.INT4: 4, fb.TensorType.INT2: 2}


def parse(content: bytes) -> "fb.ModelT":
    """Parses a TFLite model into objects; constants are views on `content`.

    Raises:
        ValueError: this is no TFLite model.
    """
    if len(content) < 8 or bytes(content[4:8]) != b"TFL3":
        raise ValueError("Not a TFLite model: the identifier 'TFL3' is missing at byte 4.")
    return fb.read_model_from_bytearray(content)


def serialise(model) -> bytes:
    """Returns the file of a parsed model."""
    return bytes(fb.convert_object_to_bytearray(model))


def constant(model, tensor) -> np.ndarray | None:
    """Returns a constant tensor's values, integers unpacked to int8; `None` for what is computed."""
    data = model.buffers[tensor.buffer].data
    if data is None or not len(data):
        return None
    shape = () if tensor.shape is None else tuple(tensor.shape)
    # Where a file is large its buffers lie behind the flatbuffer and come as bytes, otherwise as arrays.
    raw = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else np.asarray(data, np.uint8)
    bits = PACKED_BITS.get(tensor.type)
    if bits in (2, 4):
        return _unpack(raw, bits, int(np.prod(shape))).reshape(shape)
    kind = _NUMPY.get(tensor.type)
    return None if kind is None else raw.view(kind).reshape(shape)


def _unpack(raw: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Low bits first, two's complement."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    fields = (raw[:, None] >> shifts).reshape(-1)[:count] & ((1 << bits) - 1)
    return ((fields.astype(np.int16) ^ (1 << (bits - 1))) - (1 << (bits - 1))).astype(np.int8)


def consumers(subgraph, index: int) -> list[int]:
    """Returns the positions of the operators that read a tensor."""
    return [position for position, operator in enumerate(subgraph.operators) if index in list(operator.inputs)]


def tensor_name(tensor) -> str:
    """Returns a tensor's name as text."""
    return tensor.name.decode() if isinstance(tensor.name, bytes) else str(tensor.name)


def add_signature(model, input_names: list[str], output_names: list[str]) -> None:
    """Names the model's inputs and outputs, as phones address them, in its only signature, and puts the inputs in Keras's order."""

    def maps(names, indices):
        entries = []
        for name, index in zip(names, indices, strict=True):
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name, index
            entries.append(entry)
        return entries

    subgraph = model.subgraphs[0]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    subgraph.inputs = _in_order(subgraph, subgraph.inputs)
    signature.inputs = maps(input_names, subgraph.inputs)
    signature.outputs = maps(output_names, list(subgraph.outputs))
    model.signatureDefs = [signature]


def _in_order(subgraph, indices) -> list[int]:
    """The converter may order inputs by its own lights; theirs are named input_0, input_1, ..."""
    number = {int(index): int(tensor_name(subgraph.tensors[index]).split("input_")[1].split(":")[0]) for index in indices}
    return sorted(number, key=number.get)
