"""Every private name of Keras that bmpq_tf uses is there and means what it did.

A failure names what is gone.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bmpq_tf._compat import keras as compat
from bmpq_tf._compat import keras_backup, keras_metrics, keras_numpy, keras_optimizers

pytestmark = pytest.mark.quick

layers = keras.layers


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((4,), name="in")
    hidden = layers.Dense(3, name="hidden")
    return keras.Model(inputs, layers.Dense(2, name="head")(hidden(inputs)))


def test_layers_inside_and_flattened(model):
    assert [layer.name for layer in compat.layers_inside(model)] == ["in", "hidden", "head"]
    wrapped = keras.Sequential([keras.Input((4,)), model])
    found = compat.flattened_layers(wrapped)
    assert found[0] is wrapped
    names = [layer.name for layer in found]
    assert len(set(map(id, found))) == len(found)
    assert names.index(model.name) < names.index("hidden") < names.index("head")


def test_own_variables_are_those_that_a_layer_stores(model):
    layer = layers.BatchNormalization()
    layer.build((None, 3))
    assert [variable.name for variable in compat.own_variables(layer)] == [
        "gamma",
        "beta",
        "moving_mean",
        "moving_variance",
    ]
    layer.trainable = False
    assert [variable.name for variable in compat.own_trainable_variables(layer)] == [
        "gamma",
        "beta",
    ]
    assert compat.own_variables(model) == []


def test_the_flag_trainable_is_copied_without_what_it_does():
    source, target = layers.Dense(1), keras.Sequential([layers.Dense(1)])
    source.trainable = False
    compat.copy_own_trainable(source, target)
    assert not target.trainable
    assert target.layers[0].trainable


def test_an_attribute_of_a_built_layer_is_replaced():
    one, other = layers.Dense(2), layers.Dense(2)
    one.build((None, 3))
    other.build((None, 3))
    compat.replace_attribute(one, "bias", other.bias)
    assert one.bias is other.bias
    assert any(variable is other.bias for variable in one.trainable_variables)


def test_what_only_private_attributes_tell():
    assert compat.lambda_output_shape(layers.Lambda(lambda x: x, output_shape=(3,))) == (3,)
    einsum = layers.EinsumDense("ab,bc->ac", 2)
    einsum.build((None, 3))
    assert compat.einsum_kernel(einsum).shape == (3, 2)
    own, other = compat.einsum_kernel(einsum), keras.Variable(np.ones((3, 2)))
    with compat.with_einsum_kernel(einsum, other):
        np.testing.assert_array_equal(einsum(np.ones((1, 3))), [[3.0, 3.0]])
    assert compat.einsum_kernel(einsum) is own
    attention = layers.MultiHeadAttention(2, 3)
    attention.build((None, 4, 5), (None, 4, 5))
    assert [layer.name for layer in compat.attention_projections(attention)] == [
        "query",
        "key",
        "value",
    ]


@pytest.mark.parametrize(
    ("layer", "attribute"),
    [
        (layers.Dense(2), "_kernel"),
        (layers.EinsumDense("ab,bc->ac", 2), "_kernel"),
        (layers.Conv1D(2, 1), "_kernel"),
        (layers.Embedding(3, 2), "_embeddings"),
    ],
)
def test_keras_keeps_these_float_weights_behind_a_property(layer, attribute):
    layer.build((None, 3, 4) if isinstance(layer, layers.Conv1D) else (None, 3))
    assert isinstance(getattr(layer, attribute), keras.Variable)
    assert isinstance(getattr(type(layer), attribute[1:]), property)


def test_the_graph_of_a_model(model):
    sequential = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    for one in (model, sequential):
        assert compat.has_graph(one)
        nodes = list(compat.nodes_in_order(one))
        assert len(nodes) == sum(isinstance(layer, layers.Dense) for layer in one.layers)
    assert [node.operation.name for node in compat.nodes_in_order(model)] == ["hidden", "head"]
    assert not compat.has_graph(keras.Sequential([layers.Dense(2)]))
    named = keras.Model({"in": model.inputs[0]}, model.outputs)
    assert list(compat.inputs_structure(named)) == ["in"]


def test_a_model_is_called_again_with_its_own_layers():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3, name="head")(inputs))
    again = compat.called_again(model, [keras.Input((4,))])
    assert again.get_layer("head") is model.get_layer("head")
    assert again.outputs[0] is not model.outputs[0]


def test_producers_and_readers(model):
    head, hidden = model.get_layer("head"), model.get_layer("hidden")
    operation, node, place = compat.producer(model.outputs[0])
    assert (operation, place) == (head, 0)
    assert node in compat.calls_of(head)
    assert [node.operation for node in compat.calls_after(hidden)] == [head]


def test_what_an_optimizer_trains():
    variables = [keras.Variable(np.zeros((3, 2)), name="kernel")]
    inner = keras.optimizers.Adafactor()
    scaled = keras.optimizers.LossScaleOptimizer(inner)
    scaled.build(variables)
    assert keras_optimizers.inner_optimizer(scaled) is inner
    assert keras_optimizers.optimizer_variables(scaled) == variables
    factors = keras_optimizers.factored_slots(scaled, 0)
    assert [tuple(factor.shape) for factor in factors] == [(3,), (2,)]
    assert keras_optimizers.factored_slots(keras.optimizers.SGD(), 0) == []
    for one, variable in ((scaled, variables[0]), (inner, variables[0].value)):
        assert keras_optimizers.place_in(one, variable) == 0
    assert keras_optimizers.place_in(keras.optimizers.SGD(), variables[0]) is None


def test_every_step_of_an_optimizer_shows():
    variable = keras.Variable(np.zeros((3, 2), "float32"), name="kernel")
    plain = keras.optimizers.SGD(gradient_accumulation_steps=2)
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    for optimizer, gradient in ((plain, 1.0), (scaled, 1.0), (scaled, np.inf)):
        before = keras_optimizers.progress(optimizer)
        optimizer.apply([keras.ops.full((3, 2), gradient, "float32")], [variable])
        assert keras_optimizers.progress(optimizer) != before


def test_slots_are_called_as_keras_calls_them():
    for variable in (keras.Variable(np.zeros(2), name="gain"), tf.Variable(np.zeros(2), name="b")):
        optimizer = keras.optimizers.SGD(momentum=0.9)
        optimizer.build([variable])
        assert optimizer.variables[-1].name == f"{keras_optimizers.slot_prefix(variable)}_momentum"


def test_the_symbolic_build_takes_what_it_took(model):
    assert not compat.has_own_symbolic_build(model)
    assert callable(compat.symbolic_build(model))


def test_another_keras_is_told_by_version():
    class Other(keras.Model):
        _maybe_symbolic_build = None

    with pytest.raises(
        RuntimeError, match=f"Keras {keras.__version__} prepares a model .* in another way"
    ):
        compat.symbolic_build(Other())


def test_keras_own_classes_are_known():
    assert compat.is_from_keras(layers.Dense)
    assert compat.is_from_keras(keras.activations.relu)
    assert not compat.is_from_keras(test_keras_own_classes_are_known)


def test_metrics_tell_which_way_is_better():
    names = ("AUC", "CosineSimilarity", "FalsePositives")
    directions = [keras_metrics.direction(keras.metrics.get(name)) for name in names]
    assert directions == ["max", "max", None]
    mean = keras.metrics.MeanMetricWrapper(keras.losses.mean_squared_error)
    assert keras_metrics.direction(mean) == "min"


def test_backups_are_written_and_begun_from_as_keras_does(tmp_path):
    noted = []

    class Backup(keras_backup.BackupHooks):
        def save_state(self, told):
            noted.append(told)

    class Begin(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            keras_backup.begin_at(self.model, 2)

    one = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    one.compile("sgd", "mse", run_eagerly=True)
    x = np.zeros((4, 2), "float32")
    told = one.fit(x, x[:, :1], epochs=4, verbose=0, callbacks=[Backup(str(tmp_path)), Begin()])
    assert told.epoch == [2, 3]
    assert noted == [{"epoch": 3, "batch": 0}, {"epoch": 4, "batch": 0}]


def test_a_layer_of_another_class_is_called_as_that_asks():
    class Trained(layers.Dense):
        def call(self, inputs, training=None, mask=None):
            return inputs if training else super().call(inputs)

    layer = layers.Dense(3)
    layer.build((None, 3))
    compat.change_class(layer, Trained)
    x = np.ones((2, 3), "float32")
    np.testing.assert_array_equal(layer(x, training=True), x)
    assert type(layer) is Trained
    assert layer._call_has_training_arg
    assert layer._call_has_mask_arg


def test_more_is_done_after_a_layer_is_built():
    layer, built = layers.Dense(3), []
    compat.after_build(layer, lambda: built.append(layer.built))
    layer(np.ones((2, 3), "float32"))
    assert built == [True]
    assert layer.get_build_config() == {"input_shape": (2, 3)}
    undone = layers.Dense(3)
    compat.after_build(undone, lambda: built.append("late"))
    compat.only_build(undone)
    undone(np.ones((2, 3), "float32"))
    assert built == [True]
    assert undone.built


def test_a_built_layer_takes_and_drops_layers():
    layer = layers.Dense(3)
    layer.build((None, 3))
    with compat.unlocked(layer):
        layer.inner = layers.Dense(2)
    with pytest.raises(ValueError, match="cannot add new elements of state"):
        layer.other = layers.Dense(2)
    assert [part.name for part in compat.layers_inside(layer)] == [layer.inner.name]
    compat.drop_layer(layer, "inner")
    assert not compat.layers_inside(layer)
    assert not hasattr(layer, "inner")


def test_a_variable_can_be_kept_in_float32():
    layer = layers.Dense(3, dtype="mixed_float16")
    layer.build((None, 3))
    compat.set_autocast(layer.kernel, False)
    read = []
    layer.kernel_constraint = None
    layer.call = lambda inputs: read.append(layer._kernel.value.dtype) or inputs
    layer(np.ones((2, 3), "float32"))
    assert read == ["float32"]


def test_a_compilation_is_forgotten():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(np.ones((2, 2)), np.ones((2, 1)), verbose=0)
    compat.forget_compilation(model)
    assert model.metrics == []
    with pytest.raises(ValueError, match="compile"):
        model.fit(np.ones((2, 2)), np.ones((2, 1)), verbose=0)
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(np.ones((2, 2)), np.ones((2, 1)), verbose=0)


def test_a_copy_is_rematerialized_as_its_original():
    with keras.RematScope(mode="full"):
        original = layers.Dense(3)
    copy = layers.Dense(3)
    compat.copy_remat_mode(original, copy)
    assert copy._remat_mode == original._remat_mode
    assert copy._remat_mode.mode == "full"


def test_numpy_functions_are_looked_up_where_they_are_replaced(monkeypatch):
    monkeypatch.setattr(keras_numpy.FUNCTIONS, "argmax", lambda x, axis, keepdims: "ours")
    assert keras.ops.argmax(np.zeros(3, "float32")) == "ours"
