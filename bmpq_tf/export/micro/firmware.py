"""What a firmware needs of a model, as C++ sources that compile beside TFLM."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from bmpq_tf._version import __version__
from bmpq_tf.allocation.device_plan import ARENA_STEP
from bmpq_tf.export.micro.operators import check_installed, resolver_method
from bmpq_tf.export.micro.runtime import MicroModel, least_arena
from bmpq_tf.export.micro.verification import operator_names
from bmpq_tf.export.tflite.interpreter import arrays_for
from bmpq_tf.files import write_text

_PER_LINE = 16
_C_TYPES = {
    "int8": "int8_t",
    "uint8": "uint8_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "float32": "float",
    "bool": "bool",
}


def check_folder(folder: str | os.PathLike) -> pathlib.Path:
    """Returns the folder if the files can go there; raises FileExistsError or NotADirectoryError
    if not.
    """
    folder = pathlib.Path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(
            f"The firmware's files go into a folder. Received: '{folder}', which is a file. Name "
            "another."
        )
    if folder.exists() and (inside := sorted(one.name for one in folder.iterdir())):
        raise FileExistsError(
            f"The folder for the firmware's files is not empty. Received: '{folder}', which holds "
            f"{', '.join(inside[:4])}. Name a new one, or empty it."
        )
    return folder


def write_firmware(
    path: str | os.PathLike, folder: str | os.PathLike, inputs, *, examples: int = 4
) -> list[str]:
    """Writes what a firmware needs to run a file in TFLM, as C++ sources.

    `model.h` and `model.cc` hold the file as an aligned array; `settings.h` the size of the arena
    and the scales and zero points of inputs and outputs; `operators.h` a resolver with exactly the
    operators used; `golden.h` and `golden.cc` inputs with the answers of TFLM on this machine, and
    `golden_test.cc` a program that compares a device's answers with them, byte by byte.

    Args:
        path: of a file that `export_tflite` wrote with `optimize_for="micro"` or `"integer"`.
        folder: where to write: a new or an empty folder.
        inputs: examples as the model takes them, or one array for each of its inputs, from which
            the first become the golden ones.
        examples: how many, rounded up to whole batches of the file's.

    Returns:
        The names of the files.

    Raises:
        FileNotFoundError: there is no such file.
        FileExistsError: the folder holds files.
        ModuleNotFoundError: the extra `micro` is not installed.
        RuntimeError: TFLM cannot run the file.
        ValueError: there are no inputs, or more or fewer arrays than the file takes.

    Example:
        >>> options = {"optimize_for": "micro", "calibrate_with": images}
        >>> report = bmpq_tf.export_tflite(model, folder / "micro.tflite", **options)
        >>> bmpq_tf.write_firmware(report.path, folder / "firmware", images)[:3]
        ['golden.cc', 'golden.h', 'golden_test.cc']
    """
    folder = check_folder(folder)
    check_installed("Firmware")
    content = pathlib.Path(path).read_bytes()
    model = MicroModel(content)
    arrays = [array[:examples] for array in arrays_for(model.inputs, inputs)]
    if not len(arrays[0]):
        raise ValueError("The golden test needs at least one example. Received: none.")
    # The device runs whole batches.
    size = int(model.inputs[0]["shape"][0])
    whole = range(-(-len(arrays[0]) // size) * size)
    arrays = [np.take(array, whole, 0, mode="wrap") for array in arrays]
    files = {
        "model.h": _header("bmpq_model", "uint8_t", len(content), "The .tflite file."),
        "model.cc": _array("model.h", "bmpq_model", "uint8_t", np.frombuffer(content, np.uint8)),
        "settings.h": _settings(content, model),
        "operators.h": _resolver(operator_names(content)),
        **_golden(model, arrays),
        "golden_test.cc": _golden_test(model),
    }
    for name, text in files.items():
        write_text(folder / name, f"// Written by bmpq_tf {__version__}.\n{text}")
    return sorted(files)


def _header(name: str, kind: str, count: int, what: str) -> str:
    return (
        f"// {what}\n#pragma once\n#include <cstdint>\n\n"
        f"constexpr unsigned int {name}_count = {count};\n"
        f"extern const {kind} {name}[{name}_count];\n"
    )


def _array(header: str, name: str, kind: str, values: np.ndarray) -> str:
    return f'#include "{header}"\n\n{_definition(name, kind, values)}'


def _definition(name: str, kind: str, values: np.ndarray) -> str:
    texts = [_literal(value) for value in values.reshape(-1)]
    lines = [
        "  " + ", ".join(texts[start : start + _PER_LINE]) + ","
        for start in range(0, len(texts), _PER_LINE)
    ]
    # TFLM reads tensors where they lie, so they must begin where its schema says.
    return (
        f"alignas(16) extern const {kind} {name}[{name}_count] = {{\n" + "\n".join(lines) + "\n};\n"
    )


def _literal(value) -> str:
    return f"{float(value)!r}f" if isinstance(value, np.floating) else str(int(value))


def _settings(content: bytes, model: MicroModel) -> str:
    arena = least_arena(content)
    lines = [
        "// Sizes in bytes, and what the integers of inputs and outputs mean:",
        "// value = scale * (integer - zero_point).",
        "#pragma once",
        "",
        f"// As TFLM found it on a machine of 64-bit pointers, to {ARENA_STEP} bytes: more",
        "// than a microcontroller needs with the reference kernels; those of CMSIS-NN may ask for",
        "// buffers of their own.",
        f"constexpr int bmpq_arena_bytes = {arena.bytes};",
    ]
    for kind, details in (("input", model.inputs), ("output", model.outputs)):
        for number, detail in enumerate(details):
            scale, zero_point = detail["quantization"]
            shape = ", ".join(map(str, detail["shape"]))
            name = f"bmpq_{kind}_{number}"
            lines += [
                "",
                f"// {np.dtype(detail['dtype']).name} of shape ({shape}).",
                f"constexpr float {name}_scale = {_literal(np.float32(scale))};",
                f"constexpr int {name}_zero_point = {int(zero_point)};",
            ]
    return "\n".join(lines) + "\n"


def _resolver(operators: Sequence[str]) -> str:
    calls = "\n".join(
        f"  if (resolver->{resolver_method(one)}() != kTfLiteOk) return kTfLiteError;"
        for one in operators
    )
    return (
        "// Exactly the operators of the model.\n#pragma once\n"
        '#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"\n\n'
        f"using BmpqResolver = tflite::MicroMutableOpResolver<{len(operators)}>;\n\n"
        "inline TfLiteStatus BmpqRegisterOperators(BmpqResolver* resolver) {\n"
        f"{calls}\n  return kTfLiteOk;\n}}\n"
    )


def _golden(model: MicroModel, arrays: Sequence[np.ndarray]) -> dict[str, str]:
    """Inputs and answers as the device holds them, one batch after the other: mostly of one."""
    given, answers = model.integers(arrays)
    # What the device calls an example is what it runs at once.
    batches = len(arrays[0]) // int(model.inputs[0]["shape"][0])
    declared = [f"constexpr int bmpq_golden_examples = {batches};"]
    defined = []
    for kind, values in (("input", given), ("output", answers)):
        for number, value in enumerate(values):
            name, c_type = f"bmpq_golden_{kind}_{number}", _C_TYPES[value.dtype.name]
            declared.append(f"constexpr unsigned int {name}_count = {value.size};")
            declared.append(f"extern const {c_type} {name}[{name}_count];")
            defined.append(_definition(name, c_type, value))
    head = "// Inputs, and TFLM's answers to them on the machine that made the file.\n"
    return {
        "golden.h": head + "#pragma once\n#include <cstdint>\n\n" + "\n".join(declared) + "\n",
        "golden.cc": '#include "golden.h"\n\n' + "\n".join(defined),
    }


def _golden_test(model: MicroModel) -> str:
    copies = "".join(
        f"    Give(interpreter.input({number}), bmpq_golden_input_{number}, example);\n"
        for number in range(len(model.inputs))
    )
    checks = " ||\n        ".join(
        f"Differs(interpreter.output({number}), bmpq_golden_output_{number}, example)"
        for number in range(len(model.outputs))
    )
    return _GOLDEN_TEST.replace("COPIES", copies).replace("CHECKS", checks)


_GOLDEN_TEST = """\
// Runs the golden inputs on the device and compares the answers byte by byte. Links against TFLM.
// Never run on a board by those who made this file: docs/microcontrollers.md says what was tried.
#include <cstring>

#include "golden.h"
#include "model.h"
#include "operators.h"
#include "settings.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {
alignas(16) uint8_t arena[bmpq_arena_bytes];

void Give(TfLiteTensor* tensor, const void* all, int example) {
  std::memcpy(tensor->data.raw, static_cast<const char*>(all) + example * tensor->bytes,
              tensor->bytes);
}

bool Differs(const TfLiteTensor* tensor, const void* all, int example) {
  return std::memcmp(tensor->data.raw, static_cast<const char*>(all) + example * tensor->bytes,
                     tensor->bytes) != 0;
}
}  // namespace

int main() {
  BmpqResolver resolver;
  if (BmpqRegisterOperators(&resolver) != kTfLiteOk) return 1;
  tflite::MicroInterpreter interpreter(tflite::GetModel(bmpq_model), resolver, arena,
                                       sizeof(arena));
  if (interpreter.AllocateTensors() != kTfLiteOk) return 2;
  for (int example = 0; example < bmpq_golden_examples; ++example) {
COPIES    if (interpreter.Invoke() != kTfLiteOk) return 3;
    if (CHECKS) {
      MicroPrintf("example %d differs", example);
      return 4;
    }
  }
  MicroPrintf("all %d golden examples are right", bmpq_golden_examples);
  return 0;
}
"""
