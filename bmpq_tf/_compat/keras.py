"""Keras's private names, as of Keras 3.15.

`tests/compat/test_keras.py` fails by the name of what a release takes away.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, cast

import keras

Layer = keras.layers.Layer
# Keras's own classes and functions lie in modules of this prefix.
_PREFIX = "keras."
_STORES = ("trainable_variables", "non_trainable_variables")
_SYMBOLIC_BUILD = "_maybe_symbolic_build"
# What Keras wraps for each single layer, when it is made.
WRAPPED_METHODS = frozenset(("build", "quantize"))


def is_from_keras(thing) -> bool:
    """Whether a class or a function is Keras's own."""
    return (thing.__module__ or "").startswith(_PREFIX)


def load_model(path) -> keras.Model:
    """Loads a model that nothing here trains: its loss and optimizer need not be known."""
    # Keras's annotation has whatever a file may hold.
    return cast(keras.Model, keras.models.load_model(path, compile=False))


def layers_inside(layer: Layer) -> list[Layer]:
    """Returns the layers that a layer holds directly."""
    return layer._layers


def flattened_layers(layer: Layer) -> list[Layer]:
    """Returns a layer and every layer below it, models too, however deep, each once, a layer before
    what is inside it.
    """
    found: dict[int, Layer] = {}
    pending = [layer]
    while pending:
        part = pending.pop(0)
        if id(part) not in found:
            found[id(part)] = part
            pending = [*layers_inside(part), *pending]
    return list(found.values())


def own_trainable_variables(layer: Layer) -> list[keras.Variable]:
    """Returns the trainable variables of a layer itself, without those of the layers inside, frozen
    or not.
    """
    return layer._trainable_variables


def own_variables(layer: Layer) -> list[keras.Variable]:
    """Returns all variables of a layer itself, in the order that Keras stores them in."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def copy_own_trainable(source: Layer, target: Layer) -> None:
    """Copies the flag `trainable` of a layer, without what setting it does to the layers inside."""
    target._trainable = source._trainable


def replace_attribute(layer: Layer, name: str, value) -> None:
    """Gives a built layer another variable or layer under a name that it has.

    A variable takes the place of the one before, by which files store it.
    """
    stores = {name: getattr(layer, f"_{name}") for name in _STORES}
    before = vars(layer)[name]
    place = next(
        (
            (store, index)
            for store, held in stores.items()
            for index, one in enumerate(held)
            if one is before
        ),
        None,
    )
    with unlocked(layer):
        delattr(layer, name)
        setattr(layer, name, value)
    if place is None:
        return
    # A frozen one came behind those that never train.
    for store, held in stores.items():
        if held and held[-1] is value:
            held.pop()
            layer._tracker.stored_ids[store].discard(id(value))
            stores[place[0]].insert(place[1], value)
            layer._tracker.stored_ids[place[0]].add(id(value))
            return


def lambda_output_shape(layer: keras.layers.Lambda):
    """Returns the output shape that a Lambda was given."""
    return layer._output_shape


def einsum_kernel(layer: keras.layers.EinsumDense) -> keras.Variable:
    """Returns the float kernel of an EinsumDense."""
    return layer._kernel


@contextlib.contextmanager
def with_einsum_kernel(layer: keras.layers.EinsumDense, kernel: keras.Variable) -> Iterator[None]:
    """While it lasts, a built EinsumDense computes with another float kernel.

    Its variables keep their order, by which files store them.
    """
    own = layer._kernel
    with unlocked(layer):
        layer._stand_in = kernel
    object.__setattr__(layer, "_kernel", kernel)
    try:
        yield
    finally:
        object.__setattr__(layer, "_kernel", own)
        with unlocked(layer):
            del layer._stand_in


def attention_projections(layer: Layer) -> list[Layer]:
    """Returns the layers inside attention that read what it reads."""
    gate = getattr(layer, "_gate_dense", None)
    return [layer._query_dense, layer._key_dense, layer._value_dense, *([gate] if gate else [])]


def functional(model: keras.Model):
    """Returns what holds a model's graph: a sequential model keeps a functional one inside."""
    return getattr(model, "_functional", None) or model


def has_graph(model: keras.Model) -> bool:
    """Whether a model is functional, or sequential and built."""
    return hasattr(functional(model), "_nodes_by_depth")


def nodes_in_order(model: keras.Model) -> Iterator:
    """Yields the calls that make up a model, each after those that it reads from."""
    by_depth = functional(model)._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        yield from (node for node in by_depth[depth] if not node.is_input)


def called_again(model: keras.Model, inputs: list) -> keras.Model:
    """Returns a functional model of the same layers on other symbolic inputs, flat."""
    graph = functional(model)
    given = keras.tree.pack_sequence_as(inputs_structure(model), inputs)
    outputs = graph._run_through_graph(given, operation_fn=lambda operation: operation)
    return keras.Model(given, outputs, name=model.name)


def inputs_structure(model: keras.Model):
    """Returns the structure of a model's inputs, as its constructor was given it."""
    return functional(model)._inputs_struct


def producer(tensor) -> tuple[Any, Any, int]:
    """Returns the operation that gives a symbolic tensor, the call of it, and which of the call's
    results the tensor is.
    """
    operation, node_index, tensor_index = tensor._keras_history
    return operation, operation._inbound_nodes[node_index], tensor_index


def calls_of(operation) -> list:
    """Returns the calls of an operation, over all graphs that it is in."""
    return operation._inbound_nodes


def calls_after(operation) -> list:
    """Returns the calls that read what an operation gives."""
    return operation._outbound_nodes


def copy_remat_mode(layer: Layer, copy: Layer) -> None:
    """Has a copy compute anew, for its gradient, what a `keras.RematScope` had its original do."""
    copy._remat_mode = layer._remat_mode


def symbolic_build(model: keras.Model):
    """Returns the method by which Keras prepares a model for its first batch.

    Raises:
        RuntimeError: this Keras does it in another way.
    """
    build = getattr(model, _SYMBOLIC_BUILD, None)
    if build is None or set(inspect.signature(build).parameters) != {"iterator", "data_batch"}:
        raise RuntimeError(
            f"Keras {keras.__version__} prepares a model for its first batch in another way than "
            "Keras 3.15, for which "
            f"bmpq_tf was written: it has no keras.Model.{_SYMBOLIC_BUILD}(iterator, data_batch). "
            "Try model.fit without "
            "prepare_for_workers; it may work by itself, or install keras 3.15."
        )
    return build


def has_own_symbolic_build(model: keras.Model) -> bool:
    """Whether `set_symbolic_build` was called on this very model."""
    return _SYMBOLIC_BUILD in vars(model)


def set_symbolic_build(model: keras.Model, build) -> None:
    """Replaces that method on one model."""
    setattr(model, _SYMBOLIC_BUILD, build)


def change_class(layer: Layer, cls: type) -> None:
    """Makes a layer an instance of another class, with all that it holds."""
    object.__setattr__(layer, "__class__", cls)
    # What Keras notes of a call when a layer is made; not tracked, as its dicts would be.
    signature = inspect.signature(layer.call)
    names = [parameter.name for parameter in signature.parameters.values()]
    notes = {
        "_call_signature": signature,
        "call_signature_parameters": names,
        "_call_has_training_arg": "training" in names,
        "_call_has_mask_arg": "mask" in names,
        "_call_has_context_arg": {name: name in names for name in layer._call_context_args},
    }
    for name, value in notes.items():
        object.__setattr__(layer, name, value)


# The `build` that a layer had before `after_build`.
_BUILD = "_bmpq_build"


def after_build(layer: Layer, then: Callable[[], None]) -> None:
    """Has a layer that is not built do something more once it is; `only_build` undoes it."""
    build = layer.build
    object.__setattr__(layer, _BUILD, build)

    @functools.wraps(build)
    def build_and_more(*args, **kwargs):
        build(*args, **kwargs)
        then()

    object.__setattr__(layer, "build", build_and_more)


def only_build(layer: Layer) -> None:
    """Undoes `after_build`."""
    if _BUILD in layer.__dict__:
        object.__setattr__(layer, "build", layer.__dict__.pop(_BUILD))


@contextlib.contextmanager
def unlocked(layer: Layer) -> Iterator[None]:
    """Lets a built layer take more variables and layers."""
    locked = layer._tracker.locked
    layer._tracker.unlock()
    try:
        yield
    finally:
        if locked:
            layer._tracker.lock()


def drop_layer(layer: Layer, name: str) -> None:
    """Takes a layer out of a layer that holds it under a name."""
    held = vars(layer)[name]
    with unlocked(layer):
        layer._tracker.untrack(held)
    delattr(layer, name)


def set_autocast(variable: keras.Variable, autocast: bool) -> None:
    """Says whether a variable reads in 16 bits where layers compute in them."""
    variable._autocast = autocast


def without_keywords(rematerialized: Callable, layer_call: Callable, args, kwargs) -> Callable:
    """Returns what a layer's `rematerialized_call` makes of a call with its keywords given: a
    graph's computation anew takes none, and `training` is one.
    """
    again = rematerialized(functools.partial(layer_call, **kwargs), *args)
    return lambda *inputs, **_: again(*inputs)


def forget_compilation(model: keras.Model) -> None:
    """Makes a model one that was never compiled: optimizer, loss and traced steps are gone; the
    steps of models inside it too.
    """
    model.compiled, model.optimizer = False, None
    model._loss_tracker = model._compile_loss = model._compile_metrics = None
    for part in flattened_layers(model):
        if isinstance(part, keras.Model):
            part.train_function = part.test_function = part.predict_function = None
