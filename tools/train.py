"""Trains a model from scratch under a budget.

With --out_dir exports it as a packed .tflite file, and judges the file in LiteRT.

Examples:
  python tools/train.py --out_dir=runs/digits
  python tools/train.py --dataset=cifar10 --data_dir=~/tensorflow_datasets --model=resnet20 \\
      --budget=10x --epochs=30 --with_float --backup_dir=runs/backup --out_dir=runs/resnet20
  python tools/train.py --dataset=cifar10 --data_dir=~/tensorflow_datasets --model=resnet8 \\
      --budget=15x --candidate_bits=2,3,4,8 --activation_bits=8 --optimize_for=integer \\
      --io_dtype=int8 --out_dir=runs/resnet8

A run that was killed and is started again with the same flags and --backup_dir goes on at its last
epoch, or with its export if it was killed there.
"""

from absl import flags

from bmpq_research.datasets import DATA_DIR_HELP, DATASETS, DOWNLOAD_HELP
from bmpq_research.experiments.controls import METHODS
from bmpq_research.experiments.outcome import check_folder, judged_on, write_outcome
from bmpq_research.experiments.train_config import IN_GRIDS, INITIAL_WIDTHS, PINS, TrainConfig
from bmpq_research.experiments.training import train
from bmpq_research.models import MODELS
from bmpq_research.program import run as run_program
from bmpq_tf.allocation.sensitivity import OBJECTIVES
from bmpq_tf.arithmetic.quantizers import TWO_BIT_LEVELS
from bmpq_tf.arithmetic.scales import STARTS
from bmpq_tf.cli.program import bit_widths, command
from bmpq_tf.export.integer.static import IO_DTYPES
from bmpq_tf.export.kernels.storage import MODES
from bmpq_tf.export.micro.operators import check_installed
from bmpq_tf.layers.config import SCALES
from bmpq_tf.tuning.recipe import SCHEDULES

_DEFAULT = TrainConfig()

flags.DEFINE_string("model", _DEFAULT.model, f"The model: {', '.join(MODELS)}.")
flags.DEFINE_string(
    "dataset",
    _DEFAULT.dataset,
    f"The data set: {', '.join(DATASETS)}. digits comes with scikit-learn.",
)
flags.DEFINE_string("data_dir", None, DATA_DIR_HELP)
flags.DEFINE_bool("download", False, DOWNLOAD_HELP)
flags.DEFINE_float(
    "channel_multiplier", _DEFAULT.channel_multiplier, "Multiplies the channels of the model."
)
flags.DEFINE_string(
    "budget",
    _DEFAULT.budget,
    "What the model may take: '10x', '2.5 bits', '120 kB', or of a microcontroller "
    "'64 kB flash, 48 kB ram'.",
)
flags.DEFINE_list(
    "candidate_bits",
    [str(bits) for bits in _DEFAULT.candidate_bits],
    "Widths to choose from, 2 to 8.",
)
flags.DEFINE_enum("scale", _DEFAULT.scale, SCALES, "How the quantizers' scales are found.")
flags.DEFINE_enum(
    "levels",
    _DEFAULT.levels,
    TWO_BIT_LEVELS,
    "What 2 bits stand for; symmetric: -3, -1, 1, 3 half steps.",
)
flags.DEFINE_enum(
    "granularity",
    _DEFAULT.granularity,
    ("channel", "tensor"),
    "One scale per output channel, or per kernel.",
)
flags.DEFINE_enum(
    "initial_scale",
    _DEFAULT.initial_scale,
    tuple(STARTS),
    "Where learned scales start whenever a width changes.",
)
flags.DEFINE_bool(
    "normalise_kernels",
    _DEFAULT.normalise_kernels,
    "Quantize kernels at mean zero and deviation one per channel.",
)
flags.DEFINE_integer(
    "activation_bits",
    _DEFAULT.activation_bits,
    "Width of the activations: 16, 8, 4 or 2; 0 leaves them float.",
)
flags.DEFINE_enum(
    "pin",
    _DEFAULT.pin,
    PINS,
    "Whether the first and the last layers are held at 8 bits: auto pins small ones.",
)
flags.DEFINE_enum(
    "sensitivity",
    _DEFAULT.sensitivity,
    METHODS,
    "What the allocation goes by: bmpq, or a control experiment.",
)
flags.DEFINE_enum("objective", _DEFAULT.objective, OBJECTIVES, "How bit gradients become costs.")
flags.DEFINE_float(
    "min_improvement",
    _DEFAULT.min_improvement,
    "Share of the estimated loss increase that new widths must save.",
)
flags.DEFINE_enum(
    "initial_widths",
    _DEFAULT.initial_widths,
    INITIAL_WIDTHS,
    "What the warm-up runs at: allocated is by error, under the budget.",
)
flags.DEFINE_integer("epochs", _DEFAULT.epochs, "Epochs to train.", lower_bound=1)
flags.DEFINE_integer("warmup_epochs", _DEFAULT.warmup_epochs, "Epochs before the first allocation.")
flags.DEFINE_integer("interval_epochs", _DEFAULT.interval_epochs, "Epochs between allocations.")
flags.DEFINE_integer(
    "settle_epochs", None, "Epochs at the end without allocations; a third of them if not given."
)
flags.DEFINE_integer("batch_size", _DEFAULT.batch_size, "Images a step.", lower_bound=1)
flags.DEFINE_float(
    "learning_rate", _DEFAULT.learning_rate, "Peak learning rate of SGD with Nesterov momentum."
)
flags.DEFINE_float("weight_decay", _DEFAULT.weight_decay, "Weight decay of the kernels.")
flags.DEFINE_enum("schedule", _DEFAULT.schedule, SCHEDULES, "How the learning rate falls.")
flags.DEFINE_float(
    "lr_restart",
    _DEFAULT.lr_restart,
    "Share of the peak that the rate rises to again when an allocation changes widths.",
)
flags.DEFINE_float(
    "lr_warmup_epochs",
    None,
    "Epochs over which the learning rate rises; a tenth of them, at most one, if not given.",
)
flags.DEFINE_float(
    "freeze_oscillations",
    _DEFAULT.freeze_oscillations,
    "Share of steps above which the last epochs freeze a jumping weight.",
)
flags.DEFINE_float(
    "label_smoothing",
    _DEFAULT.label_smoothing,
    "Share of the target that is spread over all classes.",
)
flags.DEFINE_float(
    "distillation",
    _DEFAULT.distillation,
    "Share of the loss that is the divergence from the float model; needs --with_float.",
)
flags.DEFINE_float("temperature", _DEFAULT.temperature, "Of the distillation.")
flags.DEFINE_integer(
    "validation",
    0,
    "Hold out so many training images, judge on them, and leave the test set alone.",
)
flags.DEFINE_bool("with_float", False, "Train the float model alike first, to compare with.")
flags.DEFINE_integer("seed", 0, "Of weights, data order, augmentation and controls.")
flags.DEFINE_string(
    "backup_dir", None, "Where to keep the last epoch, so that a killed run can go on."
)
flags.DEFINE_string(
    "out_dir",
    None,
    "Where model.tflite, model.keras, float.keras (--with_float), report.json, report.html and "
    "bits.png go.",
)
flags.DEFINE_enum(
    "optimize_for",
    "size",
    MODES,
    "The file in --out_dir: the smallest, the fastest, integers only, or a microcontroller's.",
)
flags.DEFINE_enum(
    "io_dtype", None, IO_DTYPES, "What an integer file takes and gives, as bmpq-export has it."
)
flags.DEFINE_bool("overwrite", False, "Replace the files of an earlier run in --out_dir.")
flags.DEFINE_integer(
    "verbose", 2, "0: allocations and the result; 1: also a progress bar; 2: also a line an epoch."
)


def main() -> None:
    """Trains as the flags say."""
    given = flags.FLAGS
    if given.optimize_for == "micro":
        check_installed('--optimize_for="micro"')
    own = ("candidate_bits", *IN_GRIDS)
    names = [field for field in TrainConfig.__dataclass_fields__ if field not in own]
    config = TrainConfig(
        **{name: given[name].value for name in names},
        candidate_bits=bit_widths(given.candidate_bits),
    )
    if given.out_dir:
        check_folder(given.out_dir, given.overwrite, config, given.optimize_for, given.io_dtype)
    if not given.out_dir:
        print("There is no --out_dir: accuracies are printed at the end, and no model is kept.")
    run = train(config, verbose=given.verbose)
    if not given.out_dir:
        print({name: round(value, 4) for name, value in run.accuracy.items()})
        return
    exported, accuracy = write_outcome(
        run,
        given.out_dir,
        given.overwrite,
        optimize_for=given.optimize_for,
        io_dtype=given.io_dtype,
        command=command(),
    )
    runtime = "TFLM" if exported.micro else "LiteRT"
    names = {"float": "float", "keras": "quantized", "tflite": f"the file in {runtime}"}
    shares = [f"{said} {accuracy[one]:.2%}" for one, said in names.items() if one in accuracy]
    what = f"{config.model} on {config.dataset}, {config.epochs} epochs, seed {config.seed}"
    print(f"{what}, budget {run.callback.budget}\n{exported}")
    print(f"accuracy on {judged_on(config)}: {', '.join(shares)}")
    print(f"See report.html and bits.png in {given.out_dir}/.")


if __name__ == "__main__":
    run_program(main)
