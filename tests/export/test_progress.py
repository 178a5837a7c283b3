"""Long exports say where they are."""

import io
import time

import pytest
from rich.console import Console

from bmpq_tf.export.progress import Progress

pytestmark = pytest.mark.quick


def calibrate():
    time.sleep(0.3)


def find_kernels():
    pass


def told(seconds: float, *stages) -> list[str]:
    text = io.StringIO()
    progress = Progress("net", seconds, Console(file=text))
    for stage in stages:
        with progress.stage(stage):
            stage()
    return text.getvalue().splitlines()


def test_a_stage_in_which_the_time_is_over_is_told_and_a_short_export_says_nothing():
    assert told(0.1, find_kernels, calibrate) == ["Export of 'net': calibrate, after 0 s"]
    assert told(5.0, find_kernels, calibrate) == []


def test_what_fails_says_nothing_afterwards():
    text = io.StringIO()
    progress = Progress("net", 0.1, Console(file=text))
    with pytest.raises(KeyError), progress.stage(calibrate):
        raise KeyError("early")
    time.sleep(0.2)
    assert not text.getvalue()
