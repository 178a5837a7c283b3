"""The ranges of a model's activations, measured on data."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from bmpq_tf.export import graph_file
from bmpq_tf.export.runtime import TFLiteModel

Range = tuple[float, float]
_AT_ONCE = 16


def ranges(content: bytes, batches: Iterable[Sequence[np.ndarray]]) -> dict[str, Range]:
    """Returns the smallest and largest value of every float tensor that an operator computes, and of the inputs.

    Args:
        content: the float model's bytes.
        batches: inputs as the model takes them.

    Raises:
        ValueError: there is no batch.
    """
    measured: dict[str, Range] = {}
    exposed = Exposed(content)
    # Every tensor of the model is kept for a moment, so only a few examples at a time.
    for batch in (few for whole in batches for few in _parts(whole)):
        for name, values in exposed(batch).items():
            low, high = measured.get(name, (np.inf, -np.inf))
            measured[name] = min(low, float(values.min(initial=np.inf))), max(high, float(values.max(initial=-np.inf)))
    if not measured:
        raise ValueError("calibrate_with has no examples. Give at least one batch of inputs like those that the model will meet.")
    return measured


def _parts(batch: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    for start in range(0, len(batch[0]), _AT_ONCE):
        yield [array[start : start + _AT_ONCE] for array in batch]


class Exposed:
    """A model whose every computed tensor is an output.

    Args:
        content: a `.tflite` file's bytes.
        xnnpack: as `TFLiteModel` takes it.
    """

    def __init__(self, content: bytes, xnnpack: bool = True):
        model = graph_file.parse(content)
        subgraph = model.subgraphs[0]
        computed = dict.fromkeys(int(index) for operator in subgraph.operators for index in operator.outputs)
        shown = [index for index in computed if subgraph.tensors[index].type in (graph_file.FLOAT32, graph_file.INT8)]
        constant = {int(op.outputs[0]) for op in subgraph.operators if graph_file.is_dequantized_constant(model, subgraph, op)}
        self._inputs = [int(index) for index in subgraph.inputs]
        shown = [index for index in shown if index not in constant]
        self.names = [graph_file.tensor_name(subgraph.tensors[index]) for index in shown]
        self._input_names = [graph_file.tensor_name(subgraph.tensors[index]) for index in self._inputs]
        subgraph.outputs, model.signatureDefs = shown, None
        self._runtime = TFLiteModel(graph_file.serialised(model), xnnpack=xnnpack)

    def __call__(self, batch: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Returns every tensor by name, inputs first, then in the order that they are computed."""
        given = {name: array for name, array in zip(self._input_names, batch, strict=True) if np.asarray(array).dtype.kind == "f"}
        return given | dict(zip(self.names, self._runtime(batch), strict=True))
