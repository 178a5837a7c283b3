"""When a run decides."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmpq_tf.training.schedule import Schedule

pytestmark = pytest.mark.quick

NUMBERS = st.integers(1, 6)


@given(NUMBERS, NUMBERS, st.none() | NUMBERS, st.integers(1, 30))
def test_a_schedule_that_is_accepted_decides_and_then_settles(warmup, interval, settle, epochs):
    schedule = Schedule(warmup, interval, settle)
    decisions = [epoch for epoch in range(epochs) if schedule.decides(epoch, epochs)]
    try:
        schedule.check(epochs)
    except ValueError:
        assert not decisions
        return
    assert decisions[0] == warmup
    assert all(later - earlier == interval for earlier, later in itertools.pairwise(decisions))
    assert epochs - decisions[-1] >= schedule.settling(epochs) >= 1


def test_the_message_names_the_least_number_that_is_enough():
    # A third of ten epochs settles, and no more of nine.
    with pytest.raises(ValueError, match=r"at least 10 epochs. Received: epochs=8"):
        Schedule(warmup_epochs=7).check(8)
    Schedule(warmup_epochs=7).check(10)


@pytest.mark.parametrize("value", [0, True, 1.5])
def test_epochs_are_whole_numbers(value):
    with pytest.raises(ValueError, match="interval_epochs must be a whole number"):
        Schedule(interval_epochs=value)
