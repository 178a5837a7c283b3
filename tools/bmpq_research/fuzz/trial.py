"""One random model's way from Keras to files: trained, saved, loaded, exported, judged."""

import dataclasses
import pathlib
import time
import traceback
import warnings
from typing import Any

import keras
import numpy as np

import bmpq_tf
from bmpq_research.fuzz.architectures import example_inputs, random_model
from bmpq_research.fuzz.options import Options, budget_of, random_options
from bmpq_research.fuzz.refusals import is_helpful
from bmpq_tf.export.micro.operators import is_installed
from bmpq_tf.model.kernels import model_kernels, total_bits

KINDS = ("size", "latency", "integer", "micro")
EXAMPLES = 24
# What may be rounded differently in integers; the shares of METHOD.md are for trained networks.
_TOLERANCE = 0.9
_LOOKUPS = ("EMBEDDING_LOOKUP", "GATHER")
_READERS = (
    *_LOOKUPS,
    "BATCH_MATMUL",
    "CONV_2D",
    "CONV_3D",
    "CONV_3D_TRANSPOSE",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "TRANSPOSE_CONV",
)
OK, REFUSED, FINDING, SKIPPED = "ok", "refused", "finding", "skipped"


@dataclasses.dataclass(frozen=True)
class Stage:
    """What became of one stage of a model's way.

    Attributes:
        name: `"build"`, `"quantize"`, `"train"`, `"save"`, or a kind of file.
        outcome: `"ok"`; `"refused"` in words that name what and say what to do; `"skipped"`, since
            Keras itself fails or another stage did; `"finding"`.
        told: the message, or what is wrong.
        seconds: that it took.
    """

    name: str
    outcome: str
    told: str = ""
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of one seed.

    Attributes:
        seed: of the model, its options and its data.
        layers: the classes of the float model's layers.
        options: how it was quantized.
        budget: in words.
        stages: in order.
    """

    seed: int
    layers: list[str]
    options: dict[str, Any]
    budget: str
    stages: list[Stage]


class Trial:
    """Runs one seed.

    Args:
        seed: sets all of it.
        folder: for its files.
    """

    def __init__(self, seed: int, folder: pathlib.Path):
        self.seed, self.folder = seed, folder
        self.stages: list[Stage] = []
        self.float_model: keras.Model | None = None
        self.model: keras.Model | None = None
        self.options: Options | None = None
        self.budget = ""

    def run(self) -> Result:
        """Goes as far as it goes."""
        ways = (self._build, self._quantize, self._train, self._save)
        for name, way in zip(("build", "quantize", "train", "save"), ways, strict=True):
            if not self._stage(name, way):
                break
        else:
            self._export()
        found = [] if self.float_model is None else _classes(self.float_model)
        options = {} if self.options is None else dataclasses.asdict(self.options)
        return Result(self.seed, found, options, self.budget, self.stages)

    def _stage(self, name: str, way, *arguments) -> bool:
        start = time.perf_counter()
        outcome, told = OK, ""
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                outcome, told = way(*arguments) or (OK, "")
            floats = [
                one for one in caught if issubclass(one.category, bmpq_tf.FloatKernelsWarning)
            ]
            if floats:
                outcome, told = FINDING, f"float kernels: {floats[0].message}"
        except Exception as error:
            outcome, told = self._judged(name, error)
        self.stages.append(Stage(name, outcome, told, round(time.perf_counter() - start, 1)))
        return outcome == OK

    def _judged(self, name: str, error: Exception) -> tuple[str, str]:
        if name == "build":
            # Keras refuses what the generator thought of.
            return SKIPPED, f"{type(error).__name__}: {error}"[:300]
        if self.float_model is not None and is_helpful(error, self.float_model):
            return REFUSED, f"{type(error).__name__}: {error}"
        if name == "train" and self._keras_fails():
            return SKIPPED, f"Keras itself: {type(error).__name__}: {error}"[:300]
        return FINDING, f"{type(error).__name__}: {error}"[:1500] + "\n" + _where(error)

    def _build(self):
        keras.utils.clear_session(free_memory=False)
        self.float_model = random_model(self.seed)
        self.options = random_options(self.seed, self.float_model)
        self.inputs = example_inputs(self.float_model, EXAMPLES, self.seed)

    def _quantize(self):
        assert self.float_model is not None
        assert self.options is not None
        config = bmpq_tf.QuantizationConfig(**self.options.config)
        self.model = bmpq_tf.quantize_model(
            self.float_model, config=config, **self.options.quantize
        )
        self.budget = budget_of(self.options, self.model)

    def _train(self):
        assert self.model is not None
        callback = bmpq_tf.BMPQCallback(self.budget, verbose=0)
        told = self._fit(self.model, [callback])
        if told.history["bmpq_within_budget"][-1] != 1:
            return FINDING, f"over its budget after training: {told.history}"
        if not all(np.isfinite(variable).all() for variable in _arrays(self.model)):
            return SKIPPED, "training ran away to infinity"
        return None

    def _fit(self, model: keras.Model, callbacks):
        keras.utils.set_random_seed(self.seed)
        model.compile(keras.optimizers.Adam(1e-3), "mse", jit_compile=False)
        generator = np.random.default_rng((self.seed, 2))
        targets = [
            generator.standard_normal((EXAMPLES, *tensor.shape[1:])).astype("float32")
            for tensor in model.outputs
        ]
        return model.fit(
            self._fed(self.inputs),
            targets if len(targets) > 1 else targets[0],
            epochs=2,
            batch_size=8,
            verbose=0,
            callbacks=callbacks,
        )

    def _keras_fails(self) -> bool:
        """Whether the float model does not train either."""
        assert self.float_model is not None
        try:
            self._fit(self.float_model, [])
        except Exception:
            return True
        return False

    def _save(self):
        assert self.model is not None
        path = self.folder / "model.keras"
        self.model.save(path)
        loaded = keras.models.load_model(path)
        for before, after in _pairs(self.model, loaded, self._fed(self.inputs)):
            if not np.array_equal(before, after):
                return FINDING, f"answers differ once loaded: {np.abs(before - after).max()}"
        if bmpq_tf.kernel_table(loaded) != bmpq_tf.kernel_table(self.model):
            return FINDING, "kernels differ once loaded"
        self.model = loaded
        return None

    def _export(self) -> None:
        for kind in KINDS:
            if kind == "micro" and (not is_installed() or self._outcome("integer") != OK):
                self.stages.append(Stage(kind, SKIPPED, "no integer file, or no TFLM"))
            else:
                self._stage(kind, self._export_as, kind)

    def _outcome(self, name: str) -> str:
        return next(stage.outcome for stage in self.stages if stage.name == name)

    def _export_as(self, kind: str):
        assert self.model is not None
        given = self._fed(self.inputs)
        path = self.folder / f"{kind}.tflite"
        report = bmpq_tf.export_tflite(
            self.model,
            path,
            optimize_for=kind,
            verify_with=given,
            calibrate_with=given if kind in ("integer", "micro") else None,
            tolerance=None if kind == "size" else _TOLERANCE,
        )
        if problem := self._over_budget(report):
            return FINDING, problem
        if kind != "micro":
            fresh = self._fed(example_inputs(self.model, 16, self.seed + 1))
            parity = bmpq_tf.compare_tflite(self.model, path, fresh, optimize_for=kind)
            if kind == "size" and not parity.holds:
                return FINDING, f"differs from Keras on other inputs: {parity.problem}"
        return None

    def _over_budget(self, report) -> str:
        """What of the file's own weights takes more bits than the model has, in words."""
        assert self.model is not None
        states = model_kernels(self.model)
        limit = bmpq_tf.Budget.parse(self.budget).bits([state.kernel for state in states])
        if limit is not None and report.allocated_bits > limit:
            return f"budget {self.budget} is {limit} bits, the file has {report.allocated_bits}"
        weights = bmpq_tf.inspect_tflite(report.path).weights
        # Sums and products read biases of several axes, which are no kernels.
        stored = sum(
            one.count * one.bits
            for one in weights
            if one.bits is not None
            and one.operator in _READERS
            # A lookup in an integer file is rounded anew, to 8 bits.
            and not (one.operator in _LOOKUPS and report.optimize_for in ("integer", "micro"))
        )
        # An integer file rounds float kernels too, to 8 bits.
        allowed = total_bits(states)
        if stored > allowed:
            return f"weights in the file use {stored} bits, the model has {allowed}"
        return ""

    def _fed(self, arrays: list[np.ndarray]):
        return arrays if len(arrays) > 1 else arrays[0]


def _pairs(one: keras.Model, other: keras.Model, inputs):
    # Called, not predicted, which would trace both.
    answers = [keras.tree.flatten(model(inputs, training=False)) for model in (one, other)]
    return zip(*([np.asarray(array) for array in arrays] for arrays in answers), strict=True)


def _arrays(model: keras.Model):
    return [np.asarray(variable) for variable in model.trainable_variables]


def _classes(model: keras.Model) -> list[str]:
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += [f"{type(layer).__name__}[{', '.join(_classes(layer))}]"]
        elif not isinstance(layer, keras.layers.InputLayer):
            found.append(type(layer).__name__)
    return found


def _where(error: Exception) -> str:
    """The last lines of a traceback that are ours, and the very last."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "bmpq_tf" in frame.filename][-3:]
    return "\n".join(
        f"{frame.filename.rpartition('bmpq_tf')[2]}:{frame.lineno} {frame.name}"
        for frame in [*ours, frames[-1]]
    )
