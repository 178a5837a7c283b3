"""Ways in which a file can be damaged: as bytes, as a zip archive, as a `.tflite` model."""

import io
import json
import zipfile
from collections.abc import Callable

import numpy as np

from bmpq_tf.export.tflite import flatbuffer

# Takes a file's bytes, and returns those of a damaged one.
Damage = Callable[[bytes, np.random.Generator], bytes]


def truncated(content: bytes, generator: np.random.Generator) -> bytes:
    """Cut at a random place."""
    return content[: generator.integers(1, len(content))]


def empty(content: bytes, generator: np.random.Generator) -> bytes:
    """Nothing is left."""
    return b""


def text(content: bytes, generator: np.random.Generator) -> bytes:
    """A page of the web in the file's place, as failed downloads leave it."""
    return b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n" * 3


def _flipped(count: int) -> Damage:
    def flip(content: bytes, generator: np.random.Generator) -> bytes:
        values = np.frombuffer(content, np.uint8).copy()
        places = generator.integers(0, len(values), count)
        values[places] ^= generator.integers(1, 256, count).astype(np.uint8)
        return values.tobytes()

    return flip


def zeroed(content: bytes, generator: np.random.Generator) -> bytes:
    """A block of zeros, as a torn write leaves it."""
    start, size = generator.integers(0, len(content)), generator.integers(16, 4096)
    return content[:start] + bytes(len(content[start : start + size])) + content[start + size :]


def shifted(content: bytes, generator: np.random.Generator) -> bytes:
    """A few bytes too many in the middle, such as line ends that a transfer rewrote."""
    start = generator.integers(0, len(content))
    return content[:start] + generator.bytes(int(generator.integers(1, 9))) + content[start:]


AS_BYTES: dict[str, Damage] = {
    "truncated": truncated,
    "empty": empty,
    "text": text,
    "one byte": _flipped(1),
    "four bytes": _flipped(4),
    "64 bytes": _flipped(64),
    "zeroed": zeroed,
    "shifted": shifted,
}


def _rewritten(content: bytes, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> bytes:
    """An archive of other entries, with checksums that are right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, data in change(entries).items():
            archive.writestr(name, data)
    return written.getvalue()


def entry_missing(content: bytes, generator: np.random.Generator) -> bytes:
    """One entry less."""

    def change(entries):
        entries.pop(str(generator.choice(sorted(entries))))
        return entries

    return _rewritten(content, change)


def entry_damaged(content: bytes, generator: np.random.Generator) -> bytes:
    """One entry is damaged as bytes are, and its checksum is that of the damaged one."""

    def change(entries):
        name = str(generator.choice(sorted(entries)))
        kind = str(generator.choice(sorted(AS_BYTES)))
        entries[name] = AS_BYTES[kind](entries[name], generator)
        return entries

    return _rewritten(content, change)


def config_changed(content: bytes, generator: np.random.Generator) -> bytes:
    """One value of a `.keras` file's config is gone, or another."""

    def change(entries):
        config = json.loads(entries["config.json"])
        places = list(_places(config))
        holder, key = places[generator.integers(len(places))]
        if generator.random() < 0.4:
            del holder[key]
        else:
            others = (None, -1, 0, 3, 2.5, "other", [], {}, [1], True)
            holder[key] = others[generator.integers(len(others))]
        entries["config.json"] = json.dumps(config).encode()
        return entries

    return _rewritten(content, change)


def _places(node):
    """Every place of a nested structure, as what holds it and the key."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(pairs):
        yield node, key
        if isinstance(value, (dict, list)):
            yield from _places(value)


AS_ZIP: dict[str, Damage] = {"entry missing": entry_missing, "entry damaged": entry_damaged}
AS_KERAS: dict[str, Damage] = {**AS_ZIP, "config changed": config_changed}


def field_changed(content: bytes, generator: np.random.Generator) -> bytes:
    """One field of a tensor, an operator or its options has another value: the flatbuffer itself is
    whole.
    """
    model = flatbuffer.parse(content)
    graph = model.subgraphs[0]
    operators = [one for one in graph.operators if one.builtinOptions is not None]
    kind = generator.integers(5)
    number = int(generator.choice([-2, 0, 1, 7, 2**20, 2**31 - 1]))
    if kind == 0:
        tensor = _one_of(graph.tensors, generator)
        tensor.shape = _changed(tensor.shape, number, generator)
    elif kind == 1:
        _one_of(graph.tensors, generator).type = int(generator.integers(0, 20))
    elif kind == 2:
        _one_of(graph.tensors, generator).buffer = int(generator.integers(len(model.buffers)))
    elif kind == 3 or not operators:
        operator = _one_of(graph.operators, generator)
        end = "inputs" if generator.random() < 0.5 else "outputs"
        index = int(generator.choice([-1, 0, len(graph.tensors) - 1, len(graph.tensors), 2**30]))
        setattr(operator, end, _changed(getattr(operator, end), index, generator))
    else:
        options = _one_of(operators, generator).builtinOptions
        names = [name for name, value in vars(options).items() if isinstance(value, int)]
        if names:
            name = str(generator.choice(names))
            value = getattr(options, name)
            setattr(options, name, not value if isinstance(value, bool) else number)
    try:
        return flatbuffer.serialised(model)
    except Exception:
        # The field cannot hold such a value; damage it otherwise.
        return _flipped(4)(content, generator)


def _one_of(things, generator: np.random.Generator):
    return things[generator.integers(len(things))]


def _changed(values, value: int, generator: np.random.Generator) -> list[int]:
    changed = [] if values is None else [int(one) for one in values]
    if not changed:
        return [value]
    changed[generator.integers(len(changed))] = value
    return changed


AS_TFLITE: dict[str, Damage] = {"field changed": field_changed}
