"""What converter, runtimes and litert-quantizer fail at, said in words that name a layer."""

import keras
import numpy as np
import pytest
from conftest import small_data, small_model
from test_optimize_for import export
from trained_models import with_widths

from bmpq_tf import ConversionError, ExportError, export_tflite
from bmpq_tf.export import stages
from bmpq_tf.export.converter.calls import calls_replaced
from bmpq_tf.export.integer import biases
from bmpq_tf.export.tflite import flatbuffer

IMAGES, _ = small_data()


@pytest.mark.parametrize("kind", ["size", "latency", "integer"])
@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (keras.layers.Conv3D(4, 2, groups=2, name="odd"), "groups=1"),
        (keras.layers.Conv3D(4, 2, dilation_rate=2, name="odd"), "dilation_rate=1"),
    ],
)
def test_what_no_runtime_has_is_named_in_every_kind_of_file(layer, told, kind, tmp_path, capfd):
    inputs = keras.Input((4, 4, 4, 2))
    x = keras.layers.Flatten()(layer(inputs))
    model = with_widths(keras.Model(inputs, keras.layers.Dense(3)(x)), [4])
    data = np.ones((8, 4, 4, 4, 2), "float32")
    with pytest.raises(ConversionError, match=r"'odd' \(Conv3D\)") as raised:
        export(model, tmp_path / "model.tflite", kind, data)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)
    # What the converter sees is no dump on the screen either.
    assert "loc(" not in capfd.readouterr().err


def with_wrong_filter(file):
    """A depthwise convolution whose kernel has other channels than its input."""
    subgraph = file.subgraphs[0]
    code = flatbuffer.schema.BuiltinOperator.DEPTHWISE_CONV_2D
    (one,) = [op for op in subgraph.operators if flatbuffer.builtin_of(file, op) == code]
    behind = [int(op.inputs[0]) for op in subgraph.operators if one.inputs[1] in list(op.outputs)]
    for index in [int(one.inputs[1]), *behind]:
        shape = subgraph.tensors[index].shape
        shape[1], shape[3] = shape[3], shape[1]


def with_equal_names(file):
    tensors = file.subgraphs[0].tensors
    tensors[1].name = tensors[0].name


def changing(monkeypatch, name, change):
    """Has a file changed before a stage."""
    stage = getattr(stages, name)

    def changed(state):
        file = flatbuffer.parse(state.content) if state.content else state.file
        change(file)
        state.content = flatbuffer.serialised(file) if state.content else b""
        stage(state)

    order = tuple(changed if one is stage else one for one in stages.STAGES)
    monkeypatch.setattr("bmpq_tf.export.pipeline.STAGES", order)


@pytest.mark.parametrize(("kind", "stage"), [("size", "verify"), ("integer", "calibrate")])
def test_what_a_runtime_does_not_prepare_is_named(kind, stage, tmp_path, monkeypatch):
    changing(monkeypatch, stage, with_wrong_filter)
    model = with_widths(small_model(), [4])
    with pytest.raises(ExportError, match=r"It is layer 'depthwise' \(DepthwiseConv2D\)") as raised:
        export(model, tmp_path / "model.tflite", kind, IMAGES)
    assert "LiteRT does not run the file" in str(raised.value)
    assert isinstance(raised.value.__cause__, RuntimeError)
    assert not list(tmp_path.iterdir())


def test_what_litert_quantizer_refuses_is_no_argument_of_the_users(tmp_path, monkeypatch):
    changing(monkeypatch, "write_integers", with_equal_names)
    with pytest.raises(ExportError, match="litert-quantizer fails on model 'small'") as raised:
        export(with_widths(small_model(), [4]), tmp_path / "model.tflite", "integer", IMAGES)
    assert isinstance(raised.value.__cause__, ValueError)


def test_a_fault_of_the_export_itself_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(biases, "OPERAND", None)
    with pytest.raises(ExportError, match="The export of model 'small' fails: Attribute") as raised:
        export(with_widths(small_model(), [4]), tmp_path / "model.tflite", "integer", IMAGES)
    assert isinstance(raised.value.__cause__, AttributeError)


def test_what_the_users_data_raise_is_not_rewritten(tmp_path):
    def batches():
        yield IMAGES
        raise KeyError("their own")

    with pytest.raises(KeyError, match="their own"):
        export_tflite(
            with_widths(small_model(), [4]), tmp_path / "model.tflite", verify_with=batches()
        )


def test_calls_that_were_replaced_come_back_where_the_next_one_fails():
    layers = [keras.layers.Dense(2), keras.layers.Dense(2)]

    def wrap(layer, call):
        if layer is layers[1]:
            raise MemoryError
        return call

    with pytest.raises(MemoryError), calls_replaced(layers, wrap):
        pass
    assert not any("call" in vars(layer) for layer in layers)
