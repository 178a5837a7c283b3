"""The tables of docs/results.md, and what README promises, are what the results files say.

`PYTHONPATH=tools python tests/research/test_results_page.py` writes the tables anew.
"""

import math
import pathlib
import re

import pytest

from bmpq_research import markdown
from bmpq_research.experiments.report import Row, accuracies, mean_and_spread, paired, rows, spread
from bmpq_research.experiments.results import read_results

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs/results.md"
TABLES = re.compile(r"(<!-- table of (\w+) -->\n\n).*?(?=\n<!-- end of table -->)", re.DOTALL)
_OF_TODAY = ["bmpq/12x[granularity=tensor]", "bmpq/15.4x[granularity=tensor]", "uniform2"]
# By table, the rows that a reader wants, with the files that they stand in and the network.
SHOWN = {
    "vgg16": (
        "headlines vgg16_quarter ablation_quantizers ablation_scratch",
        "vgg16@0.25",
        ["float32", *_OF_TODAY],
    ),
    "resnet20": (
        "headlines resnet20_12x ablation_quantizers ablation_scratch resnet20_peers",
        "resnet20@0.5",
        ["float32", *_OF_TODAY, "after_training_int8", "after_training_int4"],
    ),
    "resnet20_full": ("resnet20_full", "resnet20@1", ["float32", "bmpq/10x", "bmpq/15.4x"]),
    "resnet18": (
        "resnet18_quarter_tiny",
        "resnet18@0.25",
        ["float32", "bmpq/15.4x", "uniform2", "after_training_int4"],
    ),
}
LEADS = {
    "random sensitivities, 12x": "random/12x",
    "quantization error alone, 12x": "error/12x",
    "Hessian traces, 12x": "hessian/12x",
    "activation density, at its size": "activation_density",
    "3 bits throughout, at their size": "uniform3",
}
WORDS = {
    "float32": "float32",
    "uniform2": "2 bits throughout",
    "after_training_int8": "int8 after training (litert-quantizer)",
    "after_training_int4": "int4 after training (litert-quantizer)",
}


def by_part(names: str, network: str) -> dict[str, Row]:
    """Returns the rows of a network by method and budget; those of the first file win."""
    found: dict[str, Row] = {}
    for name in names.split():
        for row in rows(list(read_results(ROOT / f"docs/results/{name}.jsonl").values())):
            if row.setting.startswith(f"{network}/"):
                found.setdefault(row.part, row)
    return found


def mean_of(row: Row, field: str) -> float:
    return mean_and_spread([result[field] for result in row.by_seed.values()])[0]


def bits(row: Row) -> float:
    """Parameter bits a weight."""
    return 32 * mean_of(row, "parameter_bits") / mean_of(row, "float_bits")


def accuracy(row: Row) -> str:
    return spread(accuracies(row, "test").values())


def apart(ours: Row, theirs: Row, judge: str = "test") -> str:
    mean, error, _ = paired(accuracies(ours, judge), accuracies(theirs, judge))
    return f"{mean:+.2f}" if math.isnan(error) else f"{mean:+.2f} ± {error:.2f}"


def table(name: str) -> str:
    """Returns a table of the page in Markdown."""
    if name == "leads":
        return leads()
    *where, shown = SHOWN[name]
    found = by_part(*where)
    columns = ("weights", "bits a weight", "accuracy, %", "points from float32", "file, bytes")
    lines = []
    whole = found["float32"]
    for part in shown:
        row = found[part]
        words = WORDS.get(part, f"**BMPQ, {row.budget}**")
        smaller = mean_of(whole, "file_bytes") / mean_of(row, "file_bytes")
        cells = [
            words,
            f"{bits(row):.2f}",
            accuracy(row),
            "" if part == "float32" else apart(row, whole),
            f"{mean_of(row, 'file_bytes'):,.0f}",
            "" if part == "float32" else f"{smaller:.1f}x",
        ]
        lines.append(cells)
    return f"{markdown.table((*columns, 'smaller'), lines)}\n"


def leads() -> str:
    """Returns how far BMPQ is ahead of other ways to choose widths."""
    networks = [by_part("vgg16_quarter", "vgg16@0.25"), by_part("resnet20_12x", "resnet20@0.5")]
    lines = []
    for words, part in LEADS.items():
        cells = []
        for found in networks:
            ours = (
                found.get(f"bmpq/{found[part].budget or f'size of {part}'}")
                if part in found
                else None
            )
            cells += [
                apart(ours, found[part], judge) if ours else "" for judge in ("test", "validation")
            ]
        lines.append((words, *cells))
    columns = ("ahead of", "VGG16, test", "validation", "ResNet-20, test", "validation")
    return f"{markdown.table(columns, lines)}\n"


def with_tables(text: str) -> str:
    """The text with every table that stands between its comments made anew."""
    return TABLES.sub(lambda found: found[1] + table(found[2]), text)


def test_the_tables_are_those_of_the_results():
    text = PAGE.read_text()
    assert {found[2] for found in TABLES.finditer(text)} == {*SHOWN, "leads"}
    assert with_tables(text) == text, (
        "Run PYTHONPATH=tools python tests/research/test_results_page.py."
    )


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_headlines_are_those_of_the_results(page):
    """By network: points from float32, and how many times smaller the file is."""
    text = (ROOT / page).read_text()
    for files, network, part in (
        ("vgg16_full", "vgg16@1", "bmpq/15.4x"),
        ("resnet20_full", "resnet20@1", "bmpq/10x"),
        ("resnet20_full", "resnet20@1", "bmpq/15.4x"),
    ):
        found = by_part(files, network)
        row, whole = found[part], found["float32"]
        points = apart(row, whole).replace("+", "").replace("-", "").split(" ")[0]
        smaller = mean_of(whole, "file_bytes") / mean_of(row, "file_bytes")
        assert points in text, f"{page} does not say {points} of {files}, {part}."
        assert f"{smaller:.1f} times" in text, f"{page} does not say {smaller:.1f} of {part}."


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
