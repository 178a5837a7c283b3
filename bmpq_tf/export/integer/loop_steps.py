"""What a loop of a float file computes on the way, which no output of the file tells."""

from collections.abc import Iterable, Iterator

import numpy as np

from bmpq_tf.export.integer.loop_states import loops
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.interpreter import TFLiteModel


class Steps:
    """A loop of a float file, gone through step by step, so that what its body computes is seen.

    Args:
        content: the file's bytes.
        number: of the loop.
    """

    def __init__(self, content: bytes, number: int):
        model = flatbuffer.parse(content)
        loop, main = loops(model)[number], model.subgraphs[0]
        self._places = list(loop.operator.inputs)
        self._inputs = list(main.inputs)
        self._constants = {
            index: values
            for index in self._places
            if (values := flatbuffer.constant(model, main.tensors[index])) is not None
        }
        self._computed = [
            index
            for index in dict.fromkeys(self._places)
            if index not in self._constants and index not in self._inputs
        ]
        self._condition = _alone(content, loop.condition)
        body = model.subgraphs[loop.body]
        self._names = [flatbuffer.tensor_name(tensor) for tensor in body.tensors]
        self._body_inputs, self._body_outputs = (list(ends) for ends in (body.inputs, body.outputs))
        computed = {index for operator in body.operators for index in operator.outputs}
        self._shown = sorted(computed)
        self._body = _alone(content, loop.body, self._shown)
        main.outputs, model.signatureDefs = self._computed, None
        self._main = TFLiteModel(flatbuffer.serialised(model)) if self._computed else None

    def __call__(self, batch) -> Iterator[dict[str, np.ndarray]]:
        """Yields, for each step of a batch, the float tensors of the body by name."""
        known = dict(zip(self._inputs, batch, strict=True)) | self._constants
        if self._main:
            known |= dict(zip(self._computed, self._main(batch), strict=True))
        carried = [known[index] for index in self._places]
        while bool(np.all(self._condition(carried)[0])):
            seen = dict(zip(self._body_inputs, carried, strict=True))
            seen |= dict(zip(self._shown, self._body(carried), strict=True))
            carried = [seen[index] for index in self._body_outputs]
            yield {
                self._names[index]: values
                for index, values in seen.items()
                if np.asarray(values).dtype == np.float32
            }


def _alone(content: bytes, number: int, outputs: Iterable[int] | None = None) -> TFLiteModel:
    model = flatbuffer.parse(content)
    subgraph = model.subgraphs[number]
    model.subgraphs, model.signatureDefs = [subgraph], None
    if outputs is not None:
        subgraph.outputs = list(outputs)
    return TFLiteModel(flatbuffer.serialised(model))
