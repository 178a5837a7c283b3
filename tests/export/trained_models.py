"""Models that exports are tried with."""

from conftest import compiled, small_data

from bmpq_tf import (
    QuantizationConfig,
    quantize_model,
)
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.model.kernels import model_kernels

IMAGES, LABELS = small_data()


def with_widths(model, widths, **settings):
    """Quantizes a model, gives its kernels these widths in turn, and trains it for a moment so that
    BatchNorm is real.
    """
    quantized = quantize_model(
        model, (2, 3, 4, 5, 8), pin=None, config=QuantizationConfig(**settings)
    )
    states = model_kernels(quantized)
    for number, state in enumerate(states):
        state.quantizer.set_width(widths[number % len(widths)], state.variable)
    return quantized


def trained(model):
    compiled(model).fit(IMAGES, LABELS, epochs=2, verbose=0)
    return model


def packed_tensors(path):
    model = flatbuffer.parse(path.read_bytes())
    found = {}
    for tensor in model.subgraphs[0].tensors:
        if tensor.type in flatbuffer.PACKED_BITS and flatbuffer.constant(model, tensor) is not None:
            found[flatbuffer.tensor_name(tensor)] = (
                flatbuffer.PACKED_BITS[tensor.type],
                flatbuffer.constant(model, tensor),
                tensor,
            )
    return found


def remember_budget(model, compression):
    """Gives a model's kernels the record of an allocation under this budget."""
    record = {
        "epoch": 1,
        "status": "optimal",
        "bits": 2,
        "sensitivity": 1.0,
        "enbg": 1.0,
        "budget": {"compression": compression},
    }
    for state in model_kernels(model):
        state.quantizer.history = (record,)
