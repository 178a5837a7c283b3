"""Running a `.tflite` file and looking at what it computes on the way."""

from collections.abc import Callable, Sequence

import numpy as np

from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.interpreter import Runtime, TFLiteModel


class Exposed:
    """A model that gives its inner tensors beside its outputs.

    Args:
        content: a `.tflite` file's bytes.
        xnnpack: as `TFLiteModel` takes it.
        wanted: which inner tensors, by name; all by default. What only dequantizes a constant is
            left out.
        runtime: what runs it.
    """

    def __init__(
        self,
        content: bytes,
        xnnpack: bool = True,
        wanted: Callable[[str], bool] = lambda name: True,
        runtime: Runtime = TFLiteModel,
    ):
        model = flatbuffer.parse(content)
        subgraph = model.subgraphs[0]
        tensors = subgraph.tensors
        constant = flatbuffer.dequantized_constants(model, subgraph)
        computed = dict.fromkeys(
            index for operator in subgraph.operators for index in operator.outputs
        )
        shown = [
            index
            for index in computed
            if tensors[index].type in (flatbuffer.FLOAT32, *flatbuffer.ACTIVATIONS.values())
            and index not in constant
        ]
        self._names = {
            index: name for index in shown if wanted(name := flatbuffer.tensor_name(tensors[index]))
        }
        self._input_names = [flatbuffer.tensor_name(tensors[index]) for index in subgraph.inputs]
        # Float values an example; sizes that are open count as one.
        shapes = (tensors[index].shape for index in self._names)
        self.values = sum(int(np.prod(() if shape is None else shape)) for shape in shapes)
        self._outputs = list(subgraph.outputs)
        self._given_out = list(dict.fromkeys([*self._outputs, *self._names]))
        subgraph.outputs, model.signatureDefs = self._given_out, None
        self._runtime = runtime(flatbuffer.serialised(model), xnnpack=xnnpack)

    def __call__(
        self, batch: Sequence[np.ndarray]
    ) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """Returns the outputs, and the tensors by name.

        Float inputs first, then in the order that they are computed.
        """
        values = dict(zip(self._given_out, self._runtime(batch), strict=True))
        given = {
            name: array
            for name, array in zip(self._input_names, batch, strict=True)
            if np.asarray(array).dtype.kind == "f"
        }
        return [values[index] for index in self._outputs], given | {
            name: values[index] for index, name in self._names.items()
        }
