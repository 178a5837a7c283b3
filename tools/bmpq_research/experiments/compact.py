"""The short form of a result in its file: names once, figures by column, five digits."""

from collections.abc import Iterable, Mapping
from typing import Any

DIGITS = 5
_BY_KERNEL = ("bits", "sensitivity")
# No picture and no table is made of it.
_LEFT_OUT = ("enbg",)


def compacted(result: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a result in its short form.

    Args:
        result: as `run_cell` returns it.

    Returns:
        Allocations hold one list of widths and one of sensitivities in the order of `kernels`;
        `epochs` is one list a column. Figures of both keep five digits.
    """
    short = dict(result)
    allocations = result.get("allocations")
    if allocations:
        kernels = list(allocations[0]["bits"])
        short["kernels"] = kernels
        short["allocations"] = [_decision(allocation, kernels) for allocation in allocations]
        if list(result.get("widths", ())) == kernels:
            short["widths"] = list(result["widths"].values())
    epochs = result.get("epochs")
    if epochs and all(set(epoch) == set(epochs[0]) for epoch in epochs):
        short["epochs"] = {
            name: _rounded(epoch[name] for epoch in epochs) for name in sorted(epochs[0])
        }
    return short


def expanded(short: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what `compacted` was given, but for digits and what it leaves out.

    What is not in the short form, as older versions wrote, comes back as it is.
    """
    result = dict(short)
    if short.get("allocations") and "kernels" in short:
        kernels = result.pop("kernels")
        result["allocations"] = [
            {
                name: dict(zip(kernels, value, strict=True))
                if name in _BY_KERNEL and isinstance(value, list)
                else value
                for name, value in allocation.items()
            }
            for allocation in short["allocations"]
        ]
        if isinstance(short.get("widths"), list):
            result["widths"] = dict(zip(kernels, short["widths"], strict=True))
    if isinstance(short.get("epochs"), dict):
        columns = short["epochs"]
        result["epochs"] = [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]
    return result


def _decision(allocation: Mapping[str, Any], kernels: list[str]) -> dict[str, Any]:
    return {
        name: _rounded(value.get(kernel) for kernel in kernels)
        if name in _BY_KERNEL and isinstance(value, Mapping)
        else value
        for name, value in allocation.items()
        if name not in _LEFT_OUT
    }


def _rounded(figures: Iterable[Any]) -> list[Any]:
    return [
        float(f"{figure:.{DIGITS}g}") if isinstance(figure, float) else figure for figure in figures
    ]
