"""Finds the kernels among the constants of a converted float model: which constant is whose."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from bmpq_tf.export.converter import origin
from bmpq_tf.export.kernels import gates
from bmpq_tf.export.kernels.match import KernelIntegers, Match, possible_matches
from bmpq_tf.export.tflite import flatbuffer


def find_kernels(model, kernels: Sequence[KernelIntegers]) -> list[Match]:
    """Returns every float constant that is one of the kernels.

    A shared layer's kernel may be found more than once.
    """
    matches: list[Match] = []
    found: set[str] = set()
    zeros, unknown = [], []
    for number, index, values in _constants(model):
        if not values.any():
            zeros.append((number, index, values))
            continue
        # Two kernels with the same integers fit either place; prefer one not found yet, then the
        # one of the right name.
        near = _nearness(kernels, flatbuffer.tensor_name(model.subgraphs[number].tensors[index]))
        ordered = sorted(kernels, key=lambda kernel: (kernel.path in found, -near[kernel.path]))
        if match := _best(possible_matches(model, ordered, number, index, values)):
            matches.append(match)
            found.add(match.kernel.path)
        else:
            unknown.append((number, index, values))
    # An einsum may take the axes that it sums over in the order of its other operand.
    turned = [
        turned for kernel in kernels if kernel.path not in found for turned in kernel.reordered()
    ]
    left = []
    for number, index, values in unknown:
        if match := _best(possible_matches(model, turned, number, index, values)):
            matches.append(match)
            found.add(match.kernel.path)
        else:
            left.append((number, index, values))
    blocks = _in_blocks(model, kernels, [*left, *zeros], found)
    taken = {(match.subgraph, match.tensor) for match in blocks}
    matches += blocks
    zeros, left = ([one for one in some if one[:2] not in taken] for some in (zeros, left))
    unexplained = {values.size for _, _, values in left}
    matches += _of_zeros(model, kernels, zeros, found, unexplained)
    return [
        dataclasses.replace(match, also=match.also + _equals(match, kernels, found))
        for match in matches
    ]


def _in_blocks(model, kernels: Sequence[KernelIntegers], constants, found: set[str]) -> list[Match]:
    """Matches kernels that their layers read in blocks of channels, where all blocks are there.

    `found` is added to.
    """
    matches: dict[tuple[int, int], Match] = {}
    for kernel in [kernel for kernel in kernels if kernel.path not in found]:
        for parts in gates.blocks(kernel):
            own = [_of_block(model, part, constants, set(matches)) for part in parts]
            if all(own):
                matches |= {(match.subgraph, match.tensor): match for some in own for match in some}
                found.add(kernel.path)
                break
    return list(matches.values())


def _of_block(model, part: KernelIntegers, constants, taken: set[tuple[int, int]]) -> list[Match]:
    matches = []
    for number, index, values in constants:
        if (number, index) in taken:
            continue
        name = flatbuffer.tensor_name(model.subgraphs[number].tensors[index])
        # Zeros fit any block; those of a name that is another layer's are not this one's.
        if values.any() or _nearness([part], name)[part.path]:
            match = _best(possible_matches(model, [part], number, index, values))
            matches += [match] if match else []
    return matches


def _constants(model) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yields subgraph, tensor and values of each float constant that is read and has two axes or
    more.
    """
    for number, subgraph in enumerate(model.subgraphs):
        for index, tensor in enumerate(subgraph.tensors):
            if tensor.type != flatbuffer.FLOAT32 or tensor.shape is None or len(tensor.shape) < 2:
                continue
            values = flatbuffer.constant(model, tensor)
            # Readers are looked for last: that walks all operators, and few tensors are constants.
            if values is not None and flatbuffer.consumers(subgraph, index):
                yield number, index, values


def _nearness(kernels: Sequence[KernelIntegers], name: str) -> dict[str, int]:
    """Returns by path how many parts of a kernel's path are scopes on a tensor's name.

    0 where its layer is none of them.
    """
    known = {kernel.path: {kernel.layer, *kernel.path.split("/")[:-1]} for kernel in kernels}
    scopes = origin.scopes(name, set().union(*known.values()))
    return {
        kernel.path: len(known[kernel.path] & scopes) * (kernel.layer in scopes)
        for kernel in kernels
    }


def _equals(match: Match, kernels: Sequence[KernelIntegers], found: set[str]) -> tuple[str, ...]:
    return tuple(
        kernel.path
        for kernel in kernels
        if kernel.path not in found and match.kernel.has_values_of(kernel)
    )


def _of_zeros(
    model, kernels: Sequence[KernelIntegers], zeros, found: set[str], unexplained: set[int]
) -> list[Match]:
    """Matches constants of nothing but zeros, which any kernel of their size fits that is zero
    itself or that folding silenced.

    Each is of the kernel in whose scope it lies, or of those in whose scopes it is read: equal
    constants are one. `found` is added to.
    """
    placed: list[tuple[dict[str, Match], list[KernelIntegers]]] = []
    for number, index, values in zeros:
        subgraph, fits = model.subgraphs[number], {}
        for match in possible_matches(model, kernels, number, index, values):
            fits.setdefault(match.kernel.path, match)
        fitting = [kernel for kernel in kernels if kernel.path in fits]
        results = [
            result
            for position in flatbuffer.consumers(subgraph, index)
            for result in subgraph.operators[position].outputs
        ]
        own = _nearness(kernels, flatbuffer.tensor_name(subgraph.tensors[index]))
        read = _nearness(
            kernels,
            ";".join(flatbuffer.tensor_name(subgraph.tensors[result]) for result in results),
        )
        here = sorted(
            (kernel for kernel in fitting if own[kernel.path]),
            key=lambda kernel: (kernel.path in found, -own[kernel.path]),
        )[:1]
        here = here or [
            kernel for kernel in fitting if read[kernel.path] and kernel.path not in found
        ]
        found.update(kernel.path for kernel in here)
        placed.append((fits, here))
    for kernel in kernels:
        # A constant of its size that no kernel explains may be this one, changed in a way that is
        # not known.
        lost = kernel.path not in found and not (
            kernel.integers.any() and kernel.integers.size in unexplained
        )
        homes = [here for fits, here in placed if kernel.path in fits] if lost else []
        if homes:
            min(homes, key=bool).append(kernel)
            found.add(kernel.path)
    return [_match_of_zeros(fits, here) for fits, here in placed if here]


def _match_of_zeros(fits: dict[str, Match], here: list[KernelIntegers]) -> Match:
    """Several kernels share their zeros, not their integers, in the width of the widest."""
    kernel, *others = sorted(here, key=lambda kernel: -kernel.bits)
    match, also = fits[kernel.path], tuple(other.path for other in others)
    if all(kernel.has_values_of(other) for other in others):
        return dataclasses.replace(match, also=also)
    none = dataclasses.replace(kernel, integers=np.zeros_like(kernel.integers))
    return dataclasses.replace(match, kernel=none, row=np.ones(len(none.scales)), also=also)


def _best(possible: Iterable[Match]) -> Match | None:
    vague = []
    for match in possible:
        if match.is_telling:
            return match
        vague.append(match)
    return min(vague, key=lambda match: not match.is_plain, default=None)
