"""Keras's own tests of the layers in the registry, run against the quantized classes at 8 bits.

Nothing of them is copied: the installed wheel has them, or a checkout of Keras.
"""

import contextlib
import dataclasses
import functools
import importlib
import pathlib
import re
import sys
from collections.abc import Callable, Iterator

import keras
import numpy as np
import pytest

from bmpq_research import markdown
from bmpq_tf.layers import QuantizerConfig
from bmpq_tf.layers.registry import registered

# Tests of what a quantized layer does not do by itself: LoRA's sums, Keras's own quantization.
_APART = re.compile(r"lora|quant|int8|int4|float8|gptq|awq")
# An answer of weights that are rounded to 8 bits, relative to the largest value of it.
ROUNDING = 0.05
PASSES = "passes"
ROUNDED = "passes but for rounding"
COUNTED = "passes but for the number of variables"
FAILS = "fails"
SKIPPED = "skipped"
# Not asked: a quantizer has variables, and a learned scale is one that trains.
_COUNTS = (
    "expected_num_trainable_weights",
    "expected_num_non_trainable_weights",
    "expected_num_non_trainable_variables",
)
# Why a test can fail where the layer is right; what none of them explains is to be looked at.
REASONS: dict[str, str] = {
    r"set_weights|weight list of length|Layer count mismatch": "hands over a list of weights; "
    "ours has scales and sums too",
    r"cannot keep its quantized": "constrains a kernel, which is refused",
    r"takes no LoRA": "LoRA",
    r"cannot be quantized: its weights are": "weights of 16 bits, which are refused",
    r"cannot be quantized: its dtype": "a dtype policy of Keras's own quantization",
    r"IndexedSlices": "wants a sparse gradient; that of a quantized kernel is dense",
    r"build_config": "wants an inner layer's build_config kept; ours is built by its holder, whose "
    "name is in the kernels' paths",
    r"_auto_config_error_args": "compares private attributes of Keras's",
    r"Not equal to tolerance": "compares exact floats",
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one of Keras's tests.

    Attributes:
        file: its module, without `_test.py`.
        name: its class and function.
        outcome: one of the words above.
        reason: why it fails, or empty.
    """

    file: str
    name: str
    outcome: str
    reason: str = ""


def files_of_tests(source: pathlib.Path) -> list[pathlib.Path]:
    """Returns the test files of the registry's classes.

    Args:
        source: the folder `keras/src`.

    Raises:
        FileNotFoundError: there are none.
    """
    found = set()
    for entry in registered():
        module = pathlib.Path(*entry.float_class.__module__.split(".")[2:])
        folder, name = source / module.parent, module.name
        found |= set(folder.glob(f"{name}_test.py"))
        if name not in {path.name.removesuffix("_test.py") for path in found}:
            # One file for all ranks of a kind.
            kind = re.sub(r"\d[dD]", "", name)
            found |= set(folder.glob(f"{kind}_test.py"))
    if not found:
        raise FileNotFoundError(
            f"There are no tests of layers. Received: --keras_source={source}. Give the folder "
            "keras/src of a checkout of Keras of the installed version."
        )
    return sorted(found)


def run(files: list[pathlib.Path]) -> list[Outcome]:
    """Runs test files with each of Keras's classes replaced by its quantized twin."""
    judge = _Judge()
    options = ["-q", "-p", "no:cacheprovider", "--no-header", "--tb=no", "-W", "ignore"]
    with _replaced(), _lenient(judge):
        pytest.main([*options, "-c", "/dev/null", *map(str, files)], plugins=[judge])
    return judge.outcomes


@contextlib.contextmanager
def _replaced() -> Iterator[None]:
    """Within it, `keras.layers` has the quantized classes."""
    modules = [keras.layers, importlib.import_module("keras.src.layers")]
    with pytest.MonkeyPatch.context() as patch:
        for entry in registered():
            for module in modules:
                name = entry.float_class.__name__
                if hasattr(module, name):
                    patch.setattr(module, name, entry.quantized_class)
        yield


@contextlib.contextmanager
def _lenient(judge: "_Judge") -> Iterator[None]:
    """Within it, answers may be rounded and layers have more variables; the judge is told."""
    case = importlib.import_module("keras.src.testing").TestCase
    layer = keras.layers.Layer
    places = [
        (case, "assertAllClose", _rounded(case.assertAllClose, judge)),
        (case, "run_layer_test", _uncounted(case.run_layer_test, judge)),
        (layer, "set_weights", _without_state(layer.set_weights, judge)),
        (QuantizerConfig, "of", staticmethod(_eight_bits(QuantizerConfig.of))),
    ]
    for entry in registered():
        for attribute in entry.kernel_channel_axes:
            twin = entry.quantized_class
            places.append((twin, attribute, _float_for_tests(getattr(twin, attribute), attribute)))
    with pytest.MonkeyPatch.context() as patch:
        for holder, name, value in places:
            patch.setattr(holder, name, value)
        yield


def _eight_bits(of: Callable) -> Callable:
    """A layer that is told nothing has 8 bits, with scales that need no training."""

    def config(quantizer):
        plain = QuantizerConfig((8,), scale="max_abs", granularity="channel")
        return plain if quantizer is None else of(quantizer)

    return config


def _float_for_tests(quantized: property, attribute: str) -> property:
    """A kernel that a test can assign to; the layer itself reads the quantized one."""

    def read(layer):
        caller = sys._getframe(1).f_code.co_filename
        return (
            getattr(layer, f"_{attribute}")
            if caller.endswith("_test.py")
            else quantized.__get__(layer)
        )

    return property(read, quantized.fset)


def _without_state(set_weights: Callable, judge: "_Judge") -> Callable:
    @functools.wraps(set_weights)
    def set_weights_of_twin(self, weights):
        own = [variable for variable in self.weights if "_quantizer/" not in variable.path]
        if len(own) == len(self.weights) or len(weights) != len(own):
            set_weights(self, weights)
            return
        judge.allowed.add(COUNTED)
        for variable, value in zip(own, weights, strict=True):
            variable.assign(value)

    return set_weights_of_twin


def _rounded(close: Callable, judge: "_Judge") -> Callable:
    @functools.wraps(close)
    def assert_all_close(self, actual, desired, *args, **kwargs):
        try:
            close(self, actual, desired, *args, **kwargs)
        except AssertionError:
            values = [
                np.asarray(self.convert_to_numpy(one), np.float64) for one in (actual, desired)
            ]
            if values[0].shape != values[1].shape:
                raise
            largest = max(1e-3, np.abs(values[1]).max(initial=0.0))
            if not np.abs(values[0] - values[1]).max(initial=0.0) <= ROUNDING * largest:
                raise
            judge.allowed.add(ROUNDED)

    return assert_all_close


def _uncounted(layer_test: Callable, judge: "_Judge") -> Callable:
    @functools.wraps(layer_test)
    def run_layer_test(self, *args, **kwargs):
        asked = {key: value for key, value in kwargs.items() if key not in _COUNTS}
        if len(asked) < len(kwargs):
            judge.allowed.add(COUNTED)
        layer_test(self, *args, **asked)

    return run_layer_test


class _Judge:
    """A plugin of pytest: leaves tests out, replaces imported classes, keeps outcomes."""

    def __init__(self):
        self.outcomes: list[Outcome] = []
        self.allowed: set[str] = set()

    def pytest_collection_modifyitems(self, items: list) -> None:
        twins = {entry.float_class: entry.quantized_class for entry in registered()}
        for module in {item.module for item in items}:
            for name, value in list(vars(module).items()):
                if isinstance(value, type) and value in twins:
                    setattr(module, name, twins[value])
        items[:] = [item for item in items if not _APART.search(item.name.lower())]

    def pytest_runtest_setup(self) -> None:
        self.allowed = set()
        keras.utils.set_random_seed(1)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = (yield).get_result()
        if report.when != "call" and not (report.when == "setup" and not report.passed):
            return
        outcome, reason = SKIPPED, ""
        if report.failed:
            outcome, reason = FAILS, _reason(call.excinfo.value)
        elif report.passed:
            outcome = next(iter(sorted(self.allowed)), PASSES)
        file = pathlib.Path(item.fspath).name.removesuffix("_test.py")
        self.outcomes.append(Outcome(file, item.nodeid.split("::", 1)[1], outcome, reason))


def _reason(error: BaseException) -> str:
    text = str(error)
    known = next((why for pattern, why in REASONS.items() if re.search(pattern, text)), None)
    return known or f"{type(error).__name__}: {' '.join(text.split())[:200]}"


def table(outcomes: list[Outcome]) -> str:
    """Returns a row of Markdown for each file, and below it why tests fail."""
    columns = (PASSES, ROUNDED, COUNTED, FAILS, SKIPPED)
    lines = []
    for file in dict.fromkeys(one.file for one in outcomes):
        ends = [one.outcome for one in outcomes if one.file == file]
        lines.append((file, *(str(ends.count(word)) for word in columns)))
    ends = [one.outcome for one in outcomes]
    lines.append(("**all**", *(f"**{ends.count(word)}**" for word in columns)))
    lines = [markdown.table(("tests of", *columns), lines)]
    reasons: dict[str, list[str]] = {}
    for one in outcomes:
        if one.outcome == FAILS:
            reasons.setdefault(one.reason, []).append(f"{one.file}: {one.name.split('::')[-1]}")
    lines += ["", "Why the rest fails:"] if reasons else []
    lines += [f"- {why} ({len(names)}): {', '.join(names)}" for why, names in reasons.items()]
    return "\n".join(lines)


def installed_source() -> pathlib.Path:
    """Returns the folder `keras/src` of the installed Keras."""
    return pathlib.Path(sys.modules["keras"].__file__ or "").parent / "src"
