"""Running a `.tflite` file in LiteRT."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from bmpq_tf._compat.litert import Interpreter, OpResolverType


class TFLiteModel:
    """A `.tflite` model in the LiteRT interpreter, called with NumPy arrays.

    Args:
        content: the file's bytes.
        num_threads: of the interpreter.
        xnnpack: whether XNNPACK may take operators, as it does by default; without it the built-in
            kernels run.
        interpreter: the class that computes: LiteRT's own, or one that is called like it.

    Raises:
        RuntimeError: LiteRT cannot read or run it.
    """

    def __init__(
        self,
        content: bytes,
        num_threads: int = 2,
        xnnpack: bool = True,
        interpreter: Callable[..., Any] = Interpreter,
    ):
        kernels = (
            OpResolverType.AUTO if xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        )
        try:
            self._interpreter = interpreter(
                model_content=content,
                num_threads=num_threads,
                experimental_op_resolver_type=kernels,
            )
        except ValueError as error:
            # What is wrong with data is a ValueError too; this is about the file.
            raise RuntimeError(str(error)) from error
        self.inputs = self._interpreter.get_input_details()
        self.outputs = self._interpreter.get_output_details()
        self._shapes: list[tuple[int, ...]] | None = None

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the outputs for one batch of inputs, in the model's order.

        Int8 inputs and outputs are float here.

        A file of a fixed batch size takes any number of examples too: in parts, the last one filled
        up with the first examples again.
        """
        signature = self.inputs[0]["shape_signature"]
        size = int(signature[0]) if len(signature) else -1
        if size == -1 or size == len(inputs[0]):
            return self._run(inputs)
        count = len(inputs[0])
        parts = [
            [np.take(value, range(start, start + size), 0, mode="wrap") for value in inputs]
            for start in range(0, count, size)
        ]
        return [
            np.concatenate(output)[:count] for output in zip(*map(self._run, parts), strict=True)
        ]

    def _run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        arrays = [
            quantized(np.asarray(value), detail)
            for value, detail in zip(inputs, self.inputs, strict=True)
        ]
        shapes = [array.shape for array in arrays]
        if shapes != self._shapes:
            for detail, shape in zip(self.inputs, shapes, strict=True):
                self._interpreter.resize_tensor_input(detail["index"], shape)
            self._interpreter.allocate_tensors()
            self._shapes = shapes
        for detail, array in zip(self.inputs, arrays, strict=True):
            self._interpreter.set_tensor(detail["index"], array)
        self._interpreter.invoke()
        return [
            dequantized(self._interpreter.get_tensor(detail["index"]), detail)
            for detail in self.outputs
        ]


def quantized(values: np.ndarray, detail: dict) -> np.ndarray:
    """Returns an input as a file takes it: floats on the grid that its `detail` tells, clipped."""
    scale, zero_point = detail["quantization"]
    if scale and values.dtype != detail["dtype"]:
        limits = np.iinfo(detail["dtype"])
        values = np.clip(np.round(values / scale) + zero_point, limits.min, limits.max)
    return values.astype(detail["dtype"])


def dequantized(values: np.ndarray, detail: dict) -> np.ndarray:
    """Returns an output as the floats that its integers stand for."""
    scale, zero_point = detail["quantization"]
    return (
        np.float32(scale) * (values.astype(np.float32) - zero_point)
        if scale and values.dtype != np.float32
        else values
    )


def in_rank(array: np.ndarray, shape: Sequence[int | None]) -> np.ndarray:
    """Adds or takes away a last axis of one, such as the channel of grey images, where an input's
    shape wants it: Keras does, LiteRT does not.
    """
    if array.ndim == len(shape) - 1 and shape[-1] == 1:
        return array[..., None]
    return array[..., 0] if array.ndim == len(shape) + 1 and array.shape[-1] == 1 else array


def arrays_for(details: Sequence[dict], inputs) -> list[np.ndarray]:
    """Returns inputs, an array or one for each that a file takes, in the ranks that it takes.

    Raises:
        ValueError: there are more or fewer, or they are no arrays.
    """
    if isinstance(inputs, dict):
        raise ValueError(
            f"Files take inputs by their places. Received: a dict of {', '.join(inputs)}. Give a "
            "list of arrays in the order of the model's inputs (model.inputs)."
        )
    given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    shapes = [tuple(map(int, one.get("shape_signature", one["shape"]))) for one in details]
    if len(given) != len(shapes):
        raise ValueError(
            f"The file takes {len(shapes)} inputs, of the shapes {', '.join(map(str, shapes))}. "
            f"Received: {len(given)}. Give a list with an array for each."
        )
    arrays = [np.asarray(one) for one in given]
    pairs = zip(given, arrays, strict=True)
    if broken := [type(one).__name__ for one, array in pairs if array.dtype == object]:
        raise ValueError(
            f"Files take arrays. Received: {', '.join(broken)}. Give an array of examples for each "
            "input; of a data set, those of one batch."
        )
    return [in_rank(array, shape) for array, shape in zip(arrays, shapes, strict=True)]


# What a runtime that has read a file answers a batch with.
Answers = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
# Takes a file's content and `xnnpack=`.
Runtime = Callable[..., Answers]


def answers_of(model: Answers, batches: Iterable[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Returns each output over all batches, joined along the first axis."""
    parts = [model(batch) for batch in batches]
    return [np.concatenate(output) for output in zip(*parts, strict=True)]


def classification_accuracy(model: Answers, batches: Iterable[tuple]) -> float:
    """Returns the share of images that a `.tflite` file labels rightly.

    Args:
        model: the file, in a runtime.
        batches: images and integer labels.
    """
    labels = []

    def inputs():
        for images, of_images in batches:
            labels.append(np.asarray(of_images))
            yield [np.asarray(images)]

    (logits,) = answers_of(model, inputs())
    return float(np.mean(logits.argmax(-1) == np.concatenate(labels)))
