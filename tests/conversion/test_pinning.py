"""Which ends of a model `pin="auto"` holds at 8 bits, and what the others get instead."""

import io

import keras
import numpy as np
import pytest
from conftest import compiled, pinned, small_model
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bmpq_tf import (
    BMPQCallback,
    InfeasibleBudgetError,
    QuantizationConfig,
    kernel_table,
    quantize_model,
    summary,
)
from bmpq_tf.conversion.pinning import LARGEST_SHARE, large_ends
from bmpq_tf.layers import QuantizerConfig


def dense(*widths: int) -> keras.Model:
    """Dense layers of these widths, called a, b, c and so on."""
    inputs = x = keras.Input((widths[0],))
    for name, width in zip("abcdef", widths[1:], strict=False):
        x = keras.layers.Dense(width, name=name)(x)
    return keras.Model(inputs, x)


def found(model: keras.Model) -> dict[str, tuple]:
    return {
        row.path.split("/")[0]: (row.candidates, row.pinned, row.end) for row in kernel_table(model)
    }


@pytest.mark.quick
@given(
    st.lists(st.integers(1, 1000), max_size=6),
    st.integers(0, 20_000),
    st.randoms(use_true_random=False),
)
def test_what_is_pinned_never_exceeds_its_share_and_is_the_most_that_keeps_to_it(
    ends, between, random
):
    sizes = dict(enumerate(ends))
    total = sum(ends) + between
    large = large_ends(sizes, total)
    small = [size for end, size in sizes.items() if end not in large]
    assert sum(small) <= LARGEST_SHARE * total
    # The next larger ones, which go together, would have been too many.
    if large:
        least = min(sizes[end] for end in large)
        assert all(size < least for size in small)
        assert sum(small) + ends.count(least) * least > LARGEST_SHARE * total
    # It is of the sizes alone, whatever order they come in.
    shuffled = random.sample(list(sizes.items()), len(sizes))
    assert large_ends(dict(shuffled), total) == large


@pytest.mark.quick
def test_the_share_is_a_tenth_of_a_16x_budget():
    # METHOD.md: what 8 bits in place of 4 take.
    weights, budget = 10_000, 32 * 10_000 / 16
    assert (8 - 4) * LARGEST_SHARE * weights == pytest.approx(budget / 10)


def test_small_ends_are_pinned_and_large_ones_get_candidates_from_4_up():
    # 4.9 % of the weights, 81.3 % and 13.8 %.
    model = quantize_model(dense(2, 34, 34, 17), (2, 3, 4, 8))
    total = 2 * 34 + 34 * 34 + 34 * 17
    assert 2 * 34 / total < LARGEST_SHARE < 34 * 17 / total
    assert found(model) == {
        "a": ((8,), True, "small"),
        "b": ((2, 3, 4, 8), False, None),
        "c": ((4, 8), False, "large"),
    }
    # All train at the widest first.
    assert [row.bits for row in kernel_table(model)] == [8, 8, 8]


@pytest.mark.parametrize(
    ("candidates", "pinned_bits", "ends"),
    [
        ((2, 4, 8), 8, (4, 8)),
        ((2, 5, 6), 8, (5, 6)),
        ((2, 3), 8, (3,)),
        ((2,), 8, (2,)),
        # Whoever pins below 4 bits wants ends that narrow.
        ((2, 3, 4), 3, (3, 4)),
    ],
)
def test_at_least_one_candidate_remains(candidates, pinned_bits, ends):
    config = QuantizationConfig(candidates, pinned_bits=pinned_bits)
    model = quantize_model(dense(10, 10, 10, 10), config=config)
    assert found(model) == {
        "a": (ends, False, "large"),
        "b": (candidates, False, None),
        "c": (ends, False, "large"),
    }


def test_what_is_said_of_a_layer_wins():
    model = dense(10, 10, 10, 10)
    assert found(quantize_model(model, (2, 4), pin=("auto", "a"))) == {
        "a": ((8,), True, None),
        "b": ((2, 4), False, None),
        "c": ((4,), False, "large"),
    }
    assert found(quantize_model(model, (2, 4), pin=("auto", "last")))["c"] == ((8,), True, None)
    assert found(quantize_model(model, (2, 4), overrides={"a": (2, 8)}))["a"] == (
        (2, 8),
        False,
        None,
    )
    for pin, names in (("ends", {"a", "c"}), ("first", {"a"}), ("last", {"c"}), (None, set())):
        assert pinned(quantize_model(model, (2, 4), pin=pin)) == names


def test_float_layers_count_and_are_no_ends_to_pin():
    model = dense(2, 34, 34, 17)
    assert found(quantize_model(model, (2, 4), exclude="b"))["a"] == ((8,), True, "small")
    left = found(quantize_model(model, (2, 4), exclude="a"))
    assert left["a"] == ((32,), False, None)
    # The float layer is an end all the same, so that the next one is not.
    assert left["b"] == ((2, 4), False, None)


def test_layers_inside_others_are_decided_each_by_itself():
    inputs = keras.Input((6, 40))
    x = keras.layers.MultiHeadAttention(1, 2, output_shape=40, name="attention")(inputs, inputs)
    for _ in range(2):
        x = keras.layers.Dense(40)(x)
    model = quantize_model(keras.Model(inputs, keras.layers.Dense(1, name="head")(x)))
    ends = {row.path: row.end for row in kernel_table(model) if row.end}
    # Four kernels of 80 weights are 9 % of 3,560, and equals go together.
    assert ends == {
        **{f"attention/{name}/kernel": "large" for name in ("query", "key", "value")},
        "attention/attention_output/kernel": "large",
        "head/kernel": "small",
    }


def test_the_summary_and_the_log_say_what_was_decided(capsys):
    model = quantize_model(dense(2, 34, 34, 17), (2, 4, 8))
    printed = Console(file=io.StringIO(), width=200)
    summary(model, printed)
    said = " ".join(printed.file.getvalue().split())
    assert "8 p" in said
    assert "8 e" in said
    assert 'p by pin="auto": small ends (3.8% of the weights): a/kernel' in said
    assert (
        'e by pin="auto": ends too large to pin (32.1% of the weights), so 4 or 8 bits: c/kernel'
    ) in said
    compiled(model, loss="mse")
    data = np.ones((4, 2)), np.ones((4, 17))
    model.fit(*data, epochs=3, verbose=0, callbacks=[BMPQCallback("5x")])
    first = capsys.readouterr().out.splitlines()[0]
    assert first == (
        'BMPQ pin="auto": small ends (3.8% of the weights): a/kernel; '
        "ends too large to pin (32.1% of the weights), so 4 or 8 bits: c/kernel"
    )
    explicit = Console(file=io.StringIO(), width=200)
    summary(quantize_model(dense(2, 34, 34, 17), (2, 4, 8), pin="ends"), explicit)
    assert "auto" not in explicit.file.getvalue()
    bare = Console(file=io.StringIO(), width=200)
    summary(keras.Sequential([keras.Input((4,)), keras.layers.ReLU()]), bare)
    assert "There is no kernel" in bare.file.getvalue()


def test_a_budget_that_large_ends_hold_up_is_refused_with_their_names():
    model = compiled(quantize_model(dense(10, 10, 10, 10), (2, 4, 8)), loss="mse")
    with pytest.raises(
        InfeasibleBudgetError,
        match=(
            r"'a/kernel' and 'c/kernel' are ends of the model that may have 4 bits at least; "
            r"give them narrower candidates in overrides= or loosen the budget"
        ),
    ):
        BMPQCallback("10x").check(model, epochs=3)
    # What their candidates do not change, they do not hold up.
    model = compiled(quantize_model(dense(10, 10, 10, 10), (4, 8)), loss="mse")
    with pytest.raises(InfeasibleBudgetError, match="because 4 bits is the narrowest candidate"):
        BMPQCallback("10x").check(model, epochs=3)


def test_a_saved_model_keeps_what_was_decided_and_an_old_one_what_it_had(tmp_path):
    model = quantize_model(dense(2, 34, 34, 17), (2, 4, 8))
    model.save(tmp_path / "model.keras")
    assert found(keras.models.load_model(tmp_path / "model.keras")) == found(model)
    # A layer of format 6, which knew pins alone.
    old = {**QuantizerConfig((8,), pinned=True).to_dict(), "version": 6}
    del old["end"]
    assert QuantizerConfig.of(old) == QuantizerConfig((8,), pinned=True)
    for refused in ({"end": "small"}, {"end": "huge"}):
        with pytest.raises(ValueError, match=r"end is 'small' for a layer that is pinned"):
            QuantizerConfig(**refused)


def test_a_small_stem_of_a_tiny_network_is_no_small_share():
    ends = {row.path: row.end for row in kernel_table(quantize_model(small_model()))}
    assert ends == {
        "stem/kernel": "large",
        "depthwise/kernel": None,
        "hidden/kernel": None,
        "head/kernel": "small",
    }
