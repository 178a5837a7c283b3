"""Takes out of a file what no operator needs: orphaned and duplicate buffers, unused tensors."""

import numpy as np

from bmpq_tf.export.tflite import editing


def clean_up(model, metadata: dict[str, bytes] | None = None) -> None:
    """Takes out of a parsed model what nothing reads, and gives it metadata buffers by name.

    Args:
        model: the parsed file, with signatures as `editing.add_signature` makes them; changed
            in place.
        metadata: replaces the file's own.
    """
    for signature in model.signatureDefs or []:
        # Litert-quantizer moves outputs that operators read too, and not what names them.
        subgraph = model.subgraphs[signature.subgraphIndex]
        for kind in ("inputs", "outputs"):
            ends = zip(getattr(signature, kind) or [], getattr(subgraph, kind), strict=True)
            for entry, index in ends:
                entry.tensorIndex = index
    for subgraph in model.subgraphs:
        _drop_unused_tensors(model, subgraph)
        for tensor in subgraph.tensors:
            if tensor.quantization is not None:
                tensor.quantization.min = tensor.quantization.max = None
    _share_buffers(model)
    _drop_unused_operator_codes(model)
    model.description = None
    model.metadata = model.metadataBuffer = None
    editing.add_metadata(model, metadata or {})


def _drop_unused_tensors(model, subgraph) -> None:
    used = {
        index
        for operator in subgraph.operators
        for index in [*operator.inputs, *operator.outputs, *_temporaries(operator)]
    }
    used |= {*subgraph.inputs, *subgraph.outputs}
    kept = sorted(index for index in used if index >= 0)
    number = {old: new for new, old in enumerate(kept)} | {-1: -1}
    subgraph.tensors = [subgraph.tensors[index] for index in kept]
    for operator in subgraph.operators:
        operator.inputs = [number[index] for index in operator.inputs]
        operator.outputs = [number[index] for index in operator.outputs]
        if operator.intermediates is not None:
            operator.intermediates = [number[index] for index in operator.intermediates]
    subgraph.inputs = [number[index] for index in subgraph.inputs]
    subgraph.outputs = [number[index] for index in subgraph.outputs]
    for signature in model.signatureDefs or []:
        if model.subgraphs[signature.subgraphIndex] is subgraph:
            for entry in [*(signature.inputs or []), *(signature.outputs or [])]:
                entry.tensorIndex = number[entry.tensorIndex]


def _temporaries(operator) -> list:
    return [] if operator.intermediates is None else list(operator.intermediates)


def _share_buffers(model) -> None:
    """One buffer for equal constants.

    What is computed points at buffer 0, which is empty by convention.
    """
    empty = model.buffers[0]
    empty.data = None
    buffers, position = [empty], {}
    for subgraph in model.subgraphs:
        for tensor in subgraph.tensors:
            data = model.buffers[tensor.buffer].data
            if data is None or not len(data) or tensor.isVariable:
                tensor.buffer = 0
                continue
            raw = np.asarray(data, np.uint8).tobytes()
            if raw not in position:
                position[raw] = len(buffers)
                buffers.append(model.buffers[tensor.buffer])
            tensor.buffer = position[raw]
    model.buffers = buffers


def _drop_unused_operator_codes(model) -> None:
    used = sorted(
        {operator.opcodeIndex for subgraph in model.subgraphs for operator in subgraph.operators}
    )
    number = {old: new for new, old in enumerate(used)}
    model.operatorCodes = [model.operatorCodes[index] for index in used]
    for subgraph in model.subgraphs:
        for operator in subgraph.operators:
            operator.opcodeIndex = number[operator.opcodeIndex]
