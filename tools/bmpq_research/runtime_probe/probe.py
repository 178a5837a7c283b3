"""What the installed runtimes do with weights of 2, 4 and 8 bits, found by running models of one
operator.
"""

import dataclasses
import statistics
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from bmpq_research.runtime_probe import one_operator, weighted_operators
from bmpq_tf.emulation import session

WIDTHS = (2, 4, 8)
GRANULARITIES = ("channel", "tensor")
RUNTIMES = ("LiteRT", "LiteRT without XNNPACK", "tf.lite", "tf.lite without XNNPACK")
TFLM = "TFLM"
# LiteRT on an emulated processor, which is not there on every machine.
ARM_RUNTIMES = ("arm64", "arm64 without XNNPACK")
# What an answer may differ by, relative to the largest one (`static`: in steps of the output) and
# still be right. Dynamic range rounds its inputs to 8 bits, so it cannot be closer than that.
BOUNDS = {"weight_only": 1e-5, "dynamic": 0.01, "static": 1.0}


@dataclasses.dataclass(frozen=True)
class Seen:
    """What one runtime did with one model.

    Attributes:
        operator, bits, granularity, mode, runtime: which.
        outcome: `"right"`; `"narrow"`: right only where no weight is at the lowest level,
            `-2^(bits - 1)`; `"wrong"`, NaN included; `"refused"`: no kernel.
        error: the largest difference from NumPy, relative to the largest answer; of static models
            in steps of the output; infinite for NaN, `None` where refused.
        speed: how many times as fast as the float operator with XNNPACK of ai-edge-litert; `None`
            where not timed.
    """

    operator: str
    bits: int
    granularity: str
    mode: str
    runtime: str
    outcome: str
    error: float | None
    speed: float | None = None


def cases(
    operators: Iterable[str] | None = None, modes: Iterable[str] | None = None
) -> Iterator[tuple[weighted_operators.Operator, int, str, str]]:
    """Yields every (operator, bits, granularity, mode) that there is to try."""
    for operator in weighted_operators.OPERATORS:
        if operators is None or operator.name in operators:
            for mode in operator.modes:
                if modes is None or mode in modes:
                    yield from (
                        (operator, bits, granularity, mode)
                        for granularity in GRANULARITIES
                        for bits in WIDTHS
                    )


def probe(
    *, runtimes: Iterable[str] = RUNTIMES, timed: bool = False, rounds: int = 9, **which
) -> list[Seen]:
    """Runs every case in every runtime.

    Args:
        runtimes: of `RUNTIMES` and `ARM_RUNTIMES`.
        timed: whether to measure speed as well, on one thread.
        rounds: alternated turns of each contestant.
        **which: as `cases` takes them.
    """
    found = []
    for runtime in runtimes:
        for operator, bits, granularity, mode in cases(**which):
            found.append(judge(operator, bits, granularity, mode, runtime))
    if timed:
        speeds = _speeds(
            [
                seen
                for seen in found
                if seen.outcome in ("right", "narrow") and seen.runtime.startswith("LiteRT")
            ],
            rounds,
        )
        found = [dataclasses.replace(seen, speed=speeds.get(_key(seen))) for seen in found]
    return found


def judge(
    operator: weighted_operators.Operator, bits: int, granularity: str, mode: str, runtime: str
) -> Seen:
    """Runs one case in one runtime and compares it with NumPy."""
    try:
        error = _error(one_operator.build(operator, bits, granularity, mode), mode, runtime)
        outcome = "right" if error <= BOUNDS[mode] else "wrong"
        if (
            outcome == "wrong"
            and _error(
                one_operator.build(operator, bits, granularity, mode, narrow=True), mode, runtime
            )
            <= BOUNDS[mode]
        ):
            outcome = "narrow"
    except (RuntimeError, ValueError):
        return Seen(operator.name, bits, granularity, mode, runtime, "refused", None)
    return Seen(operator.name, bits, granularity, mode, runtime, outcome, error)


def _error(case: one_operator.Case, mode: str, runtime: str) -> float:
    received = interpreter(case.content, runtime)(case.inputs).astype(np.float64)
    if not np.isfinite(received).all():
        return float("inf")
    return float(
        np.abs(received - case.expected).max()
        / (1.0 if mode == "static" else np.abs(case.expected).max())
    )


def run_with(content: bytes, runtime: str, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the first output, float64, of a model that takes the inputs as they are."""
    if runtime != TFLM:
        return interpreter(content, runtime)(*inputs).astype(np.float64)
    from bmpq_tf.export.micro.runtime import MicroModel

    return MicroModel(content).integers(inputs)[1][0].astype(np.float64)


def interpreter(content: bytes, runtime: str):
    """Returns a function that runs a model."""
    if runtime.startswith("tf.lite"):
        import tensorflow as tf

        Interpreter, OpResolverType = tf.lite.Interpreter, tf.lite.experimental.OpResolverType  # noqa: N806
    else:
        from bmpq_tf._compat.litert import Interpreter, OpResolverType

        if runtime in ARM_RUNTIMES:
            Interpreter = session.Interpreter  # noqa: N806
    kind = (
        OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        if runtime.endswith("without XNNPACK")
        else OpResolverType.AUTO
    )
    with warnings.catch_warnings():
        # tf.lite says that it moved to ai-edge-litert.
        warnings.simplefilter("ignore")
        interpreter = Interpreter(
            model_content=content, num_threads=1, experimental_op_resolver_type=kind
        )
    interpreter.allocate_tensors()
    fed = [detail["index"] for detail in interpreter.get_input_details()]
    result = interpreter.get_output_details()[0]["index"]

    def run(*inputs: np.ndarray) -> np.ndarray:
        for index, values in zip(fed, inputs, strict=True):
            interpreter.set_tensor(index, values)
        interpreter.invoke()
        return interpreter.get_tensor(result)

    return run


def _speeds(found: list[Seen], rounds: int) -> dict[tuple, float]:
    """Times an operator's models and its float model in turn.

    Medians of the ratios of each turn.
    """
    speeds = {}
    by_name = {operator.name: operator for operator in weighted_operators.OPERATORS}
    for name in dict.fromkeys(seen.operator for seen in found):
        contestants = [seen for seen in found if seen.operator == name]
        base = timer(
            one_operator.build(by_name[name], 32, "tensor", "weight_only", timed=True), RUNTIMES[0]
        )
        timers = [
            timer(
                one_operator.build(
                    by_name[name], seen.bits, seen.granularity, seen.mode, timed=True
                ),
                seen.runtime,
            )
            for seen in contestants
        ]
        ratios: list[list[float]] = [[] for _ in contestants]
        for _ in range(rounds):
            own = base()
            for each, kept in zip(timers, ratios, strict=True):
                kept.append(own / each())
        speeds.update(
            {
                _key(seen): statistics.median(kept)
                for seen, kept in zip(contestants, ratios, strict=True)
            }
        )
    return speeds


def timer(case: one_operator.Case, runtime: str):
    """Returns a function that takes the shortest of a few calls; the first two are not counted."""
    run = interpreter(case.content, runtime)
    run(case.inputs), run(case.inputs)

    def once() -> float:
        start = time.perf_counter()
        run(case.inputs)
        return time.perf_counter() - start

    return lambda: min(once() for _ in range(3))


def _key(seen: Seen) -> tuple:
    return seen.operator, seen.bits, seen.granularity, seen.mode, seen.runtime
