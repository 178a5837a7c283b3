"""Training on several machines.

What Keras's `fit` lacks for it, and one allocation for all of them.

    with tf.distribute.MultiWorkerMirroredStrategy().scope():
        model = bmpq_tf.quantize_model(float_model)
        model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    bmpq_tf.prepare_for_workers(model)
    model.fit(dataset, callbacks=[bmpq_tf.BMPQCallback("10x")])
"""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from bmpq_tf._compat import keras as keras_compat
from bmpq_tf.allocation.kernel import Kernel
from bmpq_tf.allocation.solver import STATUSES, AllocationError, Solution


def has_workers(strategy: tf.distribute.Strategy) -> bool:
    """Whether a strategy spans several processes."""
    resolver = (
        strategy.cluster_resolver
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        else None
    )
    spec = resolver.cluster_spec() if resolver else None
    return (
        bool(spec)
        and sum(spec.num_tasks(job) for job in spec.jobs if job in ("chief", "worker")) > 1
    )


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process has the first replica; always so in a single process."""
    if not has_workers(strategy):
        return True
    replicas: list[int] = []
    strategy.experimental_distribute_values_from_function(
        lambda context: replicas.append(context.replica_id_in_sync_group) or tf.zeros(())
    )
    return 0 in replicas


def prepare_for_workers(model: keras.Model) -> keras.Model:
    """Lets `fit` and `evaluate` run under `MultiWorkerMirroredStrategy`, with which Keras 3 fails
    (keras#20585).

    Keras fails twice: it averages the first batch over the workers to learn its shape, which cannot
    be done, and it averages the logs along an axis that they do not have. On this model alone, the
    shape is learned from this worker's part of the batch, and the logs get the axis. Under every
    other strategy this does nothing.

    Batch normalization keeps the moving statistics of each worker's own examples, unless made with
    `synchronized=True`. All workers must save, each to a path of its own, because reading the
    sensitivities adds them up over the workers.

    Args:
        model: made and compiled in the strategy's scope.

    Returns:
        The same model.

    Raises:
        RuntimeError: this Keras is built in another way than the one that this was written for.

    Example:
        >>> model = bmpq_tf.prepare_for_workers(model)
        >>> told = model.evaluate(images, labels, verbose=0, return_dict=True)
        >>> sorted(told)
        ['accuracy', 'loss']
    """
    strategy = model.distribute_strategy
    if not has_workers(strategy) or keras_compat.has_own_symbolic_build(model):
        return model
    keras_build = keras_compat.symbolic_build(model)

    def build_from_own_part(iterator=None, data_batch=None):
        for _, _, batches in iterator or ():
            data_batch = keras.tree.map_structure(
                lambda value: strategy.experimental_local_results(value)[0], next(batches)
            )
            break
        keras_build(data_batch=data_batch)

    keras_compat.set_symbolic_build(model, build_from_own_part)
    model.train_step = _with_axis(model.train_step)
    model.test_step = _with_axis(model.test_step)
    return model


def solved_by_chief(
    strategy: tf.distribute.Strategy, kernels: Sequence[Kernel], solve: Callable[[], Solution]
) -> Solution:
    """Runs `solve` on the chief alone and gives every worker its answer.

    Solvers stop at a time limit, so that machines of different speed might answer differently.

    Args:
        strategy: the model's; with a single process this is just `solve()`.
        kernels: those of the solution.
        solve: returns the assignment.

    Raises:
        AllocationError: on the other workers, when the chief's `solve` raised; the chief raises
            what that was.
    """
    if not has_workers(strategy):
        return solve()
    solution, error = None, None
    if is_chief(strategy):
        try:
            solution = solve()
        except Exception as raised:
            # The others wait for an answer; they get it first.
            error = raised
    told = _broadcast(strategy, _encoded(solution, kernels))
    if error is not None:
        raise error
    status, objective, gap, seconds, *bits = told.tolist()
    if not status:
        raise AllocationError("The chief found no assignment; it says why.")
    widths = {kernel.path: round(width) for kernel, width in zip(kernels, bits, strict=True)}
    return Solution(widths, STATUSES[round(status) - 1], objective, gap, seconds)


def _with_axis(step: Callable) -> Callable:
    """Gives the logs of a step the axis that Keras takes their mean along."""

    def stepped(data):
        return keras.tree.map_structure(lambda log: tf.expand_dims(log, 0), step(data))

    return stepped


def _encoded(solution: Solution | None, kernels: Sequence[Kernel]) -> list[float]:
    if solution is None:
        return [0.0] * (4 + len(kernels))
    widths = [float(solution.bits[kernel.path]) for kernel in kernels]
    return [
        1.0 + STATUSES.index(solution.status),
        solution.objective,
        solution.gap,
        solution.seconds,
        *widths,
    ]


def _broadcast(strategy: tf.distribute.Strategy, values: Sequence[float]):
    """Returns the chief's values on every worker: the sum of them and of the others' zeros."""

    def part(context):
        return tf.constant(values, tf.float64) * float(context.replica_id_in_sync_group == 0)

    parts = strategy.experimental_distribute_values_from_function(part)
    return strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None).numpy()
