"""Reports to test: of made-up models, small and large, with names that mean harm."""

import html.parser
import math

from bmpq_tf.reporting.html import as_html
from bmpq_tf.reporting.records import Facts, Form, KernelFacts, Part, Use
from bmpq_tf.reporting.sections import sections
from bmpq_tf.reporting.text import as_text

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></style><svg onload=alert(1)>",
    "a|b & [bold]c[/bold] {{7*7}} ${x}",
    "ключ/カーネル/مفتاح/naïve",
    "a-very-long-name-" + "without-a-place-to-break" * 8,
)
# The elements that HTML has without an end.
VOID = {"meta", "link", "wbr"}


def made_up(
    names=("stem/kernel", "block1/kernel", "head/kernel"),
    *,
    epochs: int = 12,
    history: bool = True,
    file: bool = True,
    accuracy: bool = True,
) -> Facts:
    """Facts of a model that is allocated before every epoch but the first."""
    allocations = tuple(range(2, epochs + 1))
    kernels = tuple(
        _kernel(name, place, len(allocations), file) for place, name in enumerate(names)
    )
    packed = sum(kernel.bytes for kernel in kernels)
    weights = sum(kernel.weights for kernel in kernels)
    logs = {
        "loss": [2 / epoch for epoch in range(1, epochs + 1)],
        "val_loss": [2.1 / epoch for epoch in range(1, epochs + 1)],
        "accuracy": [1 - 0.5 / epoch for epoch in range(1, epochs + 1)],
        "bmpq_bits": [8 - 5 * epoch / epochs for epoch in range(1, epochs + 1)],
        "learning_rate": [0.01] * epochs,
    }
    return Facts(
        title="made up",
        kernels=kernels,
        epochs=allocations,
        logs=logs if history else {},
        log_epochs=tuple(range(1, epochs + 1)) if history else (),
        forms=(
            Form("float32", 4 * weights, 5 * weights if accuracy else None, 0.9806),
            Form("int8", weights, 2 * weights if accuracy else None, 0.98),
            Form("this file", packed, packed + 900, 0.9917 if accuracy else None, True),
        )
        if accuracy
        else (
            Form("float32", 4 * weights),
            Form("int8", weights),
            Form("this file", packed, packed + 900 if file else None, None, True),
        ),
        parts=(Part("weights in int4", packed, "w4"), Part("structure", 900, "rest")),
        parity=(("compared on", "360 inputs of the user's"), ("top-1 equal to Keras", "100.00%"))
        if file
        else (),
        budget="8x",
        uses=(Use("parameter bits", 8 * packed, 9 * packed), Use("bytes of ram", None, 4000.0)),
        about=(("bmpq_tf", "0.2.0"), ("command", "python train.py --out='a b' && <b>")),
        compression=4 * weights / packed,
        file="made_up.tflite" if file else "",
        alike=1.0 if file else None,
    )


def _kernel(name: str, place: int, allocations: int, file: bool) -> KernelFacts:
    bits = (2, 4, 8, 32)[place % 4]
    return KernelFacts(
        name=name,
        weights=100 * (place % 7 + 1),
        bits=bits,
        stored_bits=bits if file else None,
        pinned=bits == 8,
        compute="in integers" if file else "",
        note="one constant with a wider kernel of the same values" * (place == 1),
        why_float="left out by layers= or exclude=" * (bits == 32),
        widths=(None,) * allocations
        if bits == 32
        else tuple(8 if (index + place) % 5 == 0 else bits for index in range(allocations - 1))
        + (bits,) * min(1, allocations),
        sensitivities=(None,) * allocations
        if bits == 32
        else tuple(
            math.exp(-index / 9 + math.sin(3.7 * index * (place + 1)) - place % 5)
            for index in range(allocations)
        ),
    )


def page(facts: Facts) -> str:
    """The page of these facts."""
    parts = sections(facts)
    return as_html(facts, parts, as_text(facts, parts))


def text(facts: Facts) -> str:
    """The tables of these facts."""
    return as_text(facts, sections(facts))


class Reader(html.parser.HTMLParser):
    """Reads a page, and fails where an element is not closed in the order of opening.

    Attributes:
        tags: all of them, with their attributes.
        words: everything that is shown, of each element.
        cells: of tables, each as one.
    """

    def __init__(self, content: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.cells: list[str] = []
        self._open: list[str] = []
        self._joins = False
        self.feed(content)
        self.close()
        assert not self._open, f"Never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"Twice the same attribute: {tag} {attrs}"
        self.tags.append((tag, dict(attrs)))
        if tag in ("td", "th"):
            self.cells.append("")
        self._joins = tag == "wbr"
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        self._joins = False
        assert self._open, f"Closed without being open: {tag}"
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] != "style":
            # A place to break a word does not end it.
            self.words.append(self.words.pop() + data if self._joins else data)
            self._joins = False
            if {"td", "th"} & set(self._open):
                self.cells[-1] += data

    def count(self, tag: str) -> int:
        """How many elements of a kind there are."""
        return sum(name == tag for name, _ in self.tags)
