"""Builds TFLite models tensor by tensor, for the probes of the runtimes and for tests."""

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.tflite import editing, flatbuffer


class Builder:
    """Builds a model of one subgraph, tensor by tensor."""

    def __init__(self):
        self.model, self.subgraph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.subgraphs = 3, [self.subgraph]
        self.model.operatorCodes, self.model.buffers = [], [schema.BufferT()]
        self.subgraph.tensors, self.subgraph.operators = [], []

    def tensor(
        self, name: str, shape, kind: int, values: np.ndarray | None = None, grid=None
    ) -> int:
        """Adds a tensor, constant where it has values.

        `grid` is scales, zero points and their axis. Returns its index.
        """
        return editing.add_tensor(self.model, self.subgraph, name, shape, kind, values, grid=grid)

    def operator(
        self, builtin: int, inputs: list[int], outputs: list[int], options: tuple[str, dict]
    ) -> None:
        """Adds an operator behind the last.

        `options` is the schema's name for them without `Options`, and their fields.
        """
        operator = editing.new_operator(self.model, builtin, inputs, outputs, options)
        self.subgraph.operators.append(operator)

    def content(self, inputs: list[int], outputs: list[int]) -> bytes:
        """Returns the model's bytes."""
        self.subgraph.inputs, self.subgraph.outputs = inputs, outputs
        return flatbuffer.serialised(self.model)
