"""What the installed runtimes do equals the copy in the docs, and the exporter takes only what was
seen to work.
"""

import itertools
import pathlib

import numpy as np
import pytest
from conftest import needs_arm64

from bmpq_research.runtime_probe import probe, table, weighted_operators
from bmpq_tf.emulation import root as emulated
from bmpq_tf.export.kernels import storage

# An ARM processor where one is set up.
RUNTIMES = (
    *probe.RUNTIMES,
    *(probe.ARM_RUNTIMES if emulated.is_ready(emulated.default_root()) else ()),
)
DOCS = pathlib.Path(__file__).parents[2] / "docs" / "runtime_matrix.md"


@pytest.fixture(scope="module")
def seen():
    return probe.probe(runtimes=RUNTIMES)


def test_the_docs_hold_what_the_runtimes_do(seen):
    assert table.departures(table.documented(DOCS.read_text()), table.rows(seen)) == []


@needs_arm64
def test_the_docs_hold_what_an_arm_processor_does(seen):
    rows = table.rows(seen)
    assert all(len(row) == len(table.COLUMNS) for row in rows)
    assert table.departures(table.documented(DOCS.read_text()), rows) == []


@pytest.mark.parametrize(("place", "wrong"), [(3, "wrong"), (-2, "int8: wrong"), (-1, "int4: -")])
def test_a_cell_that_is_other_than_the_docs_tell_is_named(place, wrong):
    told = table.documented(DOCS.read_text())
    assert table.departures(told, told) == []
    planted = [list(row) for row in told]
    planted[6][place] = wrong
    found = table.departures([tuple(row) for row in planted], told)
    # By chance a wrong kernel may be right.
    assert len(found) == (place != 3)
    assert len(table.departures(told, [tuple(row) for row in planted])) == 1


def test_the_exporter_emits_only_what_is_right_in_every_runtime(seen):
    emitted = set()
    for bits, lowest in itertools.product((2, 3, 4, 5, 8), (True, False)):
        low = -(2 ** (bits - 1)) + (bits == 8 or not lowest)
        integers = np.resize(np.arange(low, 2 ** (bits - 1)), (4, 2**18)).astype(np.int16)
        for operator, mode, count in itertools.product(
            weighted_operators.OPERATORS, storage.MODES, (1, 16, 17, None)
        ):
            container = storage.choose(mode, operator.builtin, integers, bits, count)
            how = container.compute
            # Operators without an integer kernel cannot be in an integer file; the export says so.
            if how in operator.modes and (how, operator.name) != ("static", "CONV_3D"):
                emitted.add(
                    (
                        operator.name,
                        how,
                        container.bits,
                        bool(integers.min() > -(2 ** (container.bits - 1))),
                    )
                )
    assert {(how, bits) for _, how, bits, _ in emitted} >= {
        ("dynamic", 4),
        ("dynamic", 8),
        ("static", 8),
        ("weight_only", 2),
    }
    for name, how, bits, narrow in sorted(emitted):
        # BATCH_MATMUL takes one scale a tensor in static files; everything else has one a channel.
        granularity = "tensor" if (how, name) == ("static", "BATCH_MATMUL") else "channel"
        found = [
            one
            for one in seen
            if (one.operator, one.mode, one.bits, one.granularity) == (name, how, bits, granularity)
        ]
        assert [one.runtime for one in found] == list(RUNTIMES)
        for one in found:
            assert one.outcome == "right" or (one.outcome == "narrow" and narrow), one


def test_the_traps_are_there_to_be_avoided(seen):
    """If this fails a release mended a kernel: look at storage.py again."""
    outcome = {
        (one.operator, one.bits, one.granularity, one.mode, one.runtime): one for one in seen
    }
    for runtime in RUNTIMES:
        trap = outcome["CONV_2D 3x3", 2, "channel", "dynamic", runtime]
        assert trap.outcome == "wrong"
        assert trap.error == float("inf")
    assert (
        outcome["FULLY_CONNECTED", 4, "channel", "dynamic", "LiteRT without XNNPACK"].outcome
        == "narrow"
    )
    assert outcome["DEPTHWISE_CONV_2D", 8, "tensor", "dynamic", "LiteRT"].outcome == "wrong"


def test_a_wrong_kernel_would_be_seen(monkeypatch):
    operator = next(one for one in weighted_operators.OPERATORS if one.name == "FULLY_CONNECTED")
    assert probe.judge(operator, 8, "channel", "dynamic", "LiteRT").outcome == "right"
    honest = probe.interpreter
    monkeypatch.setattr(
        probe, "interpreter", lambda *given: lambda inputs: honest(*given)(inputs) * 1.05
    )
    assert probe.judge(operator, 8, "channel", "dynamic", "LiteRT").outcome == "wrong"


@pytest.mark.slow
@pytest.mark.timed
def test_the_chosen_containers_are_no_slower_than_int8():
    found = probe.probe(
        runtimes=("LiteRT",),
        modes=("dynamic",),
        operators=("FULLY_CONNECTED", "CONV_2D 3x3"),
        timed=True,
    )
    speed = {(one.operator, one.bits, one.granularity): one.speed for one in found}
    assert speed["FULLY_CONNECTED", 4, "channel"] > 0.9 * speed["FULLY_CONNECTED", 8, "channel"]
    assert speed["FULLY_CONNECTED", 2, "channel"] < speed["FULLY_CONNECTED", 4, "channel"]
    assert speed["CONV_2D 3x3", 4, "channel"] < 0.6 * speed["CONV_2D 3x3", 8, "channel"]
