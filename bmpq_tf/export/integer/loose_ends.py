"""What litert-quantizer leaves at the ends of a subgraph, and of operators that nothing reads."""

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.tflite import flatbuffer

_BUILTIN = schema.BuiltinOperator


def drop_copies(model, subgraph) -> None:
    """Takes out the conversions before a subgraph's outputs that change nothing."""
    copies = {
        operator.outputs[0]: operator.inputs[0]
        for operator in subgraph.operators
        if flatbuffer.builtin_of(model, operator) == _BUILTIN.QUANTIZE
        and _same_grid(subgraph, operator)
    }
    subgraph.outputs = [copies.get(index, index) for index in subgraph.outputs]
    read = {index for operator in subgraph.operators for index in operator.inputs}
    subgraph.operators = [
        operator
        for operator in subgraph.operators
        if not (operator.outputs[0] in copies and operator.outputs[0] not in read)
    ]


def _same_grid(subgraph, operator) -> bool:
    one, other = (subgraph.tensors[ends[0]] for ends in (operator.inputs, operator.outputs))
    return one.type == other.type and flatbuffer.same_grid(one, other)


def round_unread(model) -> None:
    """Makes integers of results that nothing reads beside others that are, such as a gate's that
    meets a state of zeros: litert-quantizer leaves them float.
    """
    for subgraph in model.subgraphs:
        read = {index for operator in subgraph.operators for index in operator.inputs}
        read |= set(subgraph.outputs)
        for operator in subgraph.operators:
            results = [(index, subgraph.tensors[index]) for index in operator.outputs]
            kinds = flatbuffer.ACTIVATIONS.values()
            whole = [tensor for _, tensor in results if tensor.type in kinds]
            for index, tensor in results if whole else ():
                if index not in read and tensor.type == flatbuffer.FLOAT32:
                    tensor.type, tensor.quantization = whole[0].type, whole[0].quantization


def drop_unread(model, subgraph) -> None:
    """Removes conversions that nothing reads."""
    read = {index for operator in subgraph.operators for index in operator.inputs} | set(
        subgraph.outputs
    )
    subgraph.operators = [
        operator
        for operator in subgraph.operators
        if flatbuffer.builtin_of(model, operator) != _BUILTIN.DEQUANTIZE
        or operator.outputs[0] in read
    ]
