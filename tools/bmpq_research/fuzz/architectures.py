"""Random models, each set by its seed: branches, sums, products, shared and nested models, several
inputs and outputs.
"""

import itertools

import keras
import numpy as np

from bmpq_research.fuzz.blocks import Chance, random_block, spatial

layers = keras.layers
_TOKENS = 11
_ATTEMPTS = 20
_MOST_VALUES = 400
_SUMS = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate")


def random_model(seed: int) -> keras.Model:
    """Returns the float model of a seed; the same one whenever it is asked for."""
    for attempt in itertools.count():
        keras.utils.set_random_seed(seed)
        try:
            model = _drawn(seed, Chance((seed, attempt)))
            # Some that Keras builds it cannot compute.
            inputs = example_inputs(model, 2, seed)
            model(inputs if len(inputs) > 1 else inputs[0])
            return model
        # Keras refuses what was drawn: draw again.
        except Exception:
            if attempt == _ATTEMPTS:
                raise
    raise AssertionError


def _drawn(seed: int, chance: Chance) -> keras.Model:
    inputs = [_input(chance) for _ in range(chance.among(1, 1, 1, 2))]
    live = [_embedded(chance, tensor) for tensor in inputs]
    for _ in range(chance.number(2, 5)):
        place = chance.number(0, len(live) - 1)
        result = _step(chance, live[place])
        # A branch keeps what it came from; a chain does not.
        if len(live) < 3 and chance.happens(0.3):
            live.append(result)
        else:
            live[place] = result
        if len(live) > 1 and chance.happens(0.3):
            live = _merged(chance, live)
    heads = [_head(chance, tensor) for tensor in live]
    count = chance.among(1, 1, len(heads))
    outputs = [*heads[: count - 1], _joined(chance, heads[count - 1 :])]
    return keras.Model(
        inputs if len(inputs) > 1 else inputs[0],
        outputs if len(outputs) > 1 else outputs[0],
        name=f"seed_{seed}",
    )


def example_inputs(model: keras.Model, count: int, seed: int) -> list[np.ndarray]:
    """Returns a batch for each of a model's inputs."""
    generator = np.random.default_rng((seed, 1))
    batches = []
    for tensor in model.inputs:
        shape = (count, *tensor.shape[1:])
        if tensor.dtype == "int32":
            batches.append(generator.integers(0, _TOKENS, shape).astype("int32"))
        else:
            batches.append(generator.standard_normal(shape).astype("float32"))
    return batches


def _input(chance: Chance):
    kind = chance.among(
        "image", "image", "image", "sequence", "sequence", "vector", "volume", "words"
    )
    side, channels = chance.number(4, 8), chance.number(1, 7)
    shape = {
        "image": (side, chance.among(side, side + 1), channels),
        "sequence": (chance.number(3, 6), channels),
        "vector": (chance.number(2, 9),),
        "volume": (3, 4, 3, chance.number(1, 3)),
        "words": (chance.number(3, 6),),
    }[kind]
    return keras.Input(
        shape, dtype="int32" if kind == "words" else "float32", name=chance.name(kind)
    )


def _embedded(chance: Chance, tensor):
    if tensor.dtype != "int32":
        return tensor
    return layers.Embedding(_TOKENS, chance.number(2, 6), name=chance.name("embedding"))(tensor)


def _step(chance: Chance, x):
    """A block, a residual one, a shared layer or a nested model."""
    # Nothing grows without end.
    if int(np.prod(x.shape[1:])) > _MOST_VALUES and spatial(x) in (1, 2, 3):
        kind = f"AveragePooling{spatial(x)}D"
        x = getattr(layers, kind)(2, padding="same", name=chance.name("shrink"))(x)
    way = chance.among("block", "block", "block", "residual", "shared", "nested")
    if way == "block":
        return random_block(chance, x)
    if way == "residual":
        return _residual(chance, x)
    part = _part(chance, x)
    once = part(x)
    if way == "nested" and once.shape[1:] != x.shape[1:]:
        return once
    if way == "shared" and once.shape[1:] == x.shape[1:]:
        return layers.Add(name=chance.name("add"))([part(once), once])
    return once


def _residual(chance: Chance, x):
    result = random_block(chance, x)
    if result.shape[1:] != x.shape[1:]:
        return result
    kind = chance.among("Add", "Multiply", "Subtract")
    return getattr(layers, kind)(name=chance.name(kind.lower()))([x, result])


def _part(chance: Chance, x):
    """A layer that keeps the shape, or a model of a few blocks."""
    if chance.happens(0.4):
        return layers.Dense(int(x.shape[-1]), activation="relu", name=chance.name("shared"))
    inner = keras.Input(x.shape[1:], name=chance.name("inner_input"))
    y = inner
    for _ in range(chance.number(1, 2)):
        y = random_block(chance, y)
    return keras.Model(inner, y, name=chance.name("nested"))


def _merged(chance: Chance, live: list) -> list:
    """Two tensors of one shape become one, where there are two."""
    for place, one in enumerate(live):
        for other in live[place + 1 :]:
            if one is not other and one.shape[1:] == other.shape[1:]:
                rest = [tensor for tensor in live if tensor is not one and tensor is not other]
                kind = chance.among(*_SUMS)
                return [*rest, getattr(layers, kind)(name=chance.name(kind.lower()))([one, other])]
    return live


def _head(chance: Chance, x):
    if spatial(x) in (1, 2, 3) and chance.happens(0.4):
        kind = chance.among("GlobalAveragePooling", "GlobalMaxPooling")
        x = getattr(layers, f"{kind}{spatial(x)}D")(name=chance.name("global"))(x)
    elif spatial(x):
        x = layers.Flatten(name=chance.name("flatten"))(x)
    return layers.Dense(chance.number(2, 5), name=chance.name("head"))(x)


def _joined(chance: Chance, heads: list):
    if len(heads) == 1:
        return heads[0]
    joined = layers.Concatenate(name=chance.name("join"))(heads)
    return layers.Dense(chance.number(2, 4), name=chance.name("head"))(joined)
