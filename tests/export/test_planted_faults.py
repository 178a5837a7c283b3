"""A file that is wrong is found out: one weight, one scale or one zero point, in the first kernel,
in one of the middle and in the last, in every kind of file.
"""

import keras
import numpy as np
import pytest
from conftest import compiled

from bmpq_tf import ExportError, export_tflite, quantize_model
from bmpq_tf.export import stages
from bmpq_tf.export.micro import read_back as micro
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.verification import constants
from bmpq_tf.export.verification.comparison import compare

KINDS = ("size", "latency", "integer")
FAULTS = ("weight", "scale", "zero point")


def residual(blocks=2):
    """Convolutions along one axis with sums, behind which the converter renames the roundings."""
    inputs = keras.Input((16, 3))
    x = keras.layers.Conv1D(6, 3, padding="same", name="stem")(inputs)
    for number in range(blocks):
        y = keras.layers.Conv1D(6, 3, padding="same", name=f"block_{number}")(x)
        x = keras.layers.ReLU()(keras.layers.Add()([keras.layers.BatchNormalization()(y), x]))
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(4, name="head")(x))


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)
    data = np.random.default_rng(0).standard_normal((64, 16, 3)).astype("float32")
    model = compiled(quantize_model(residual(), (4,), activation_bits=8, pin="ends"))
    model.fit(data, np.arange(64) % 4, epochs=2, verbose=0)
    return model, data


@pytest.fixture(scope="module")
def checked(trained, tmp_path_factory):
    """By kind, the file's bytes and what is checked with them: arguments of the two checks."""
    model, data = trained
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for kind in KINDS:
            given = []
            patch.setattr(
                stages, "check_constants", lambda *arguments, to=given: to.append(arguments)
            )
            patch.setattr(stages, "check_grids", lambda *arguments, to=given: to.append(arguments))
            export(model, tmp_path_factory.mktemp(kind) / "model.tflite", kind, data)
            found[kind] = given
    return found


def export(model, path, kind, data):
    calibration = {"calibrate_with": data} if kind in ("integer", "micro") else {}
    return export_tflite(model, path, optimize_for=kind, verify_with=data, **calibration)


def kernels_of(file, names):
    """The tensors of the kernels, in the order in which they are read."""
    subgraph = file.subgraphs[0]
    read = [int(index) for operator in subgraph.operators for index in operator.inputs]
    tensors = [subgraph.tensors[index] for index in dict.fromkeys(read) if index >= 0]
    return [tensor for tensor in tensors if flatbuffer.tensor_name(tensor) in names]


def plant(file, tensor, fault):
    """Changes one weight by one, one scale by 1 %, or one zero point by one, in place."""
    grid = tensor.quantization
    if fault == "scale":
        grid.scale = np.array(grid.scale, np.float32)
        grid.scale[len(grid.scale) // 2] *= 1.01
    elif fault == "zero point":
        grid.zeroPoint = np.array(grid.zeroPoint, np.int64)
        grid.zeroPoint[len(grid.zeroPoint) // 2] += 1
    else:
        integers, bits = (
            flatbuffer.constant(file, tensor).copy(),
            flatbuffer.PACKED_BITS[tensor.type],
        )
        position = np.abs(integers.astype(int)).argmin()
        integers.reshape(-1)[position] += 1
        buffer = file.buffers[tensor.buffer]
        buffer.data = (
            flatbuffer.packed(integers, bits) if bits < 8 else integers.reshape(-1).view(np.uint8)
        )


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_that_is_wrong_is_found_at_every_depth(kind, fault, checked):
    content, floats, names = checked[kind][0]
    constants.check_constants(content, floats, names)
    count = len(kernels_of(flatbuffer.parse(content), names))
    assert count == 4
    for number in (0, count // 2, count - 1):
        file = flatbuffer.parse(content)
        plant(file, kernels_of(file, names)[number], fault)
        with pytest.raises(ExportError, match=r"constant '.*' is not the model's"):
            constants.check_constants(flatbuffer.serialised(file), floats, names)


def test_a_bias_that_is_wrong_is_found(checked):
    for kind in KINDS:
        content, floats, names = checked[kind][0]
        file = flatbuffer.parse(content)
        biases = [
            tensor
            for tensor in file.subgraphs[0].tensors
            if flatbuffer.constant(file, tensor) is not None
            and flatbuffer.constant(file, tensor).shape == (6,)
        ]
        assert len(biases) == 3
        for tensor in biases:
            one = flatbuffer.parse(content)
            tensor = one.subgraphs[0].tensors[file.subgraphs[0].tensors.index(tensor)]
            values = flatbuffer.constant(one, tensor).copy()
            values[0] += 2 if values.dtype == np.int32 else 0.01 * values.max()
            one.buffers[tensor.buffer].data = values.view(np.uint8)
            with pytest.raises(ExportError, match=r"1 of 6 values differ"):
                constants.check_constants(flatbuffer.serialised(one), floats, names)


@pytest.mark.parametrize("fault", ["scale", "zero point"])
def test_a_grid_of_activations_that_is_wrong_is_found(fault, checked):
    content, floats, ranges = checked["integer"][1]
    constants.check_grids(content, floats, ranges)

    def activations(file):
        return [
            tensor
            for tensor in file.subgraphs[0].tensors
            if tensor.type == flatbuffer.INT8 and flatbuffer.constant(file, tensor) is None
        ]

    count = len(activations(flatbuffer.parse(content)))
    assert count > 8
    for place in range(count):
        file = flatbuffer.parse(content)
        plant(file, activations(file)[place], fault)
        with pytest.raises(ExportError, match="which no range of the model's gives"):
            constants.check_grids(flatbuffer.serialised(file), floats, ranges)


@pytest.mark.parametrize("fault", ["weight", "scale"])
def test_answers_alone_tell_where_a_file_is_wrong_at_every_depth(fault, trained, checked):
    model, data = trained
    content, _, names = checked["size"][0]
    assert compare(model, content, data).holds
    for number in range(4):
        file = flatbuffer.parse(content)
        plant(file, kernels_of(file, names)[number], fault)
        parity = compare(model, flatbuffer.serialised(file), data)
        assert not parity.holds, number
        # In lockstep with the file up to there, so that the layer behind the fault is named.
        assert ("The first rounding that differs is '" in parity.problem) == (number < 3)


def test_an_export_with_a_fault_writes_nothing(trained, tmp_path, monkeypatch):
    model, data = trained
    honest = stages.cleanup.clean_up

    def faulty(file, metadata=None):
        honest(file, metadata)
        kernels = [
            tensor
            for tensor in file.subgraphs[0].tensors
            if tensor.type == flatbuffer.INT8
            and flatbuffer.constant(file, tensor) is not None
            and len(tensor.shape) > 1
        ]
        plant(file, kernels[0], "weight")

    monkeypatch.setattr(stages.cleanup, "clean_up", faulty)
    # That what was packed is what was read back is checked first.
    for unlooked in ((), ("read",)):
        for name in unlooked:
            monkeypatch.setattr(stages, name, lambda *arguments: 0)
        with pytest.raises(ExportError, match=r"does not hold the integers|is not the model's"):
            export(model, tmp_path / "model.tflite", "size", data)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_micro_file_with_a_fault_is_told_from_the_integer_file(fault, trained, tmp_path):
    pytest.importorskip("tflite_micro")
    model, data = trained
    given = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "micro_read_back", lambda *contents: given.append(contents) or 0)
        export(model, tmp_path / "model.tflite", "micro", data[:4])
    content, integer_content, kernels = given[0]
    assert 0 < micro.read_back(content, integer_content, kernels) <= len(content)
    places = [
        index
        for index, tensor in enumerate(flatbuffer.parse(integer_content).subgraphs[0].tensors)
        if tensor.type == flatbuffer.INT8
        and len(tensor.shape) > 1
        and flatbuffer.constant(flatbuffer.parse(integer_content), tensor) is not None
    ]
    for place in (places[0], places[len(places) // 2], places[-1]):
        file = flatbuffer.parse(integer_content)
        plant(file, file.subgraphs[0].tensors[place], fault)
        with pytest.raises(ExportError, match=r"does not hold the (integers|grids)"):
            micro.read_back(content, flatbuffer.serialised(file), kernels)
