"""Sources for a firmware: the file, its operators and golden examples as arrays."""

import os
import pathlib
import subprocess

import keras
import pytest

pytest.importorskip("tflite_micro")

from cortex_m import CORES, compile_for, needs_cortex_m
from micro_models import IMAGES, OPTIONS, trained

from bmpq_tf import export_tflite, write_firmware
from bmpq_tf.export.micro.runtime import MicroModel

layers = keras.layers


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("micro") / "model.tflite"
    return export_tflite(trained({"wide/kernel": 3}), path, **OPTIONS)


def test_the_firmware_compiles_and_holds_the_file(written, tmp_path):
    folder = tmp_path / "firmware"
    names = write_firmware(written.path, folder, IMAGES, examples=3)
    assert names == sorted(one.name for one in folder.iterdir())
    assert "resolver->AddDecode()" in (folder / "operators.h").read_text()
    assert f"= {written.micro.arena.bytes};" in (folder / "settings.h").read_text()
    (folder / "print.cc").write_text(
        '#include <cstdio>\n#include "golden.h"\n#include "model.h"\n#include "settings.h"\n'
        "int main() {\n"
        "  std::fwrite(bmpq_model, 1, bmpq_model_count, stdout);\n"
        "  std::fwrite(bmpq_golden_input_0, 1, bmpq_golden_input_0_count, stdout);\n"
        "  std::fwrite(bmpq_golden_output_0, 1, bmpq_golden_output_0_count, stdout);\n"
        "  return reinterpret_cast<uintptr_t>(bmpq_model) % 16 != 0;\n}\n"
    )
    sources = ["model.cc", "golden.cc", "print.cc"]
    line = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", *sources, "-o", "print"]
    subprocess.run(line, cwd=folder, check=True, timeout=120)
    printed = subprocess.run([folder / "print"], capture_output=True, check=True).stdout
    content = pathlib.Path(written.path).read_bytes()
    given, answers = MicroModel(content).integers([IMAGES[:3]])
    assert printed == content + given[0].tobytes() + answers[0].tobytes()


@needs_cortex_m
@pytest.mark.parametrize("core", CORES)
def test_the_firmwares_arrays_compile_for_a_microcontroller(core, written, tmp_path):
    folder = tmp_path / "firmware"
    write_firmware(written.path, folder, IMAGES)
    model = compile_for(core, folder / "model.cc", tmp_path, [folder])["bmpq_model"]
    assert model.section.startswith(".rodata")
    assert model.bytes == written.tflite_bytes
    assert model.alignment % 16 == model.address % 16 == 0
    assert compile_for(core, folder / "golden.cc", tmp_path, [folder])


def test_golden_inputs_are_whole_batches(tmp_path):
    image = keras.Input((8, 8, 3), batch_size=4)
    outputs = layers.Dense(4)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image)))
    path = tmp_path / "model.tflite"
    export_tflite(trained(model=keras.Model(image, outputs)), path, **OPTIONS)
    write_firmware(path, tmp_path / "firmware", IMAGES, examples=5)
    told = (tmp_path / "firmware" / "golden.h").read_text()
    assert "bmpq_golden_examples = 2;" in told
    assert f"bmpq_golden_input_0_count = {2 * 4 * 8 * 8 * 3};" in told


def test_firmware_goes_into_an_empty_folder_that_cannot_be_replaced(written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sorted(write_firmware(written.path, ".", IMAGES)) == sorted(os.listdir(tmp_path))


def test_firmware_wants_an_array_for_each_input(written, tmp_path):
    with pytest.raises(ValueError, match=r"takes 1 inputs, of the shapes \(1, 8, .*Received: 2"):
        write_firmware(written.path, tmp_path / "firmware", [IMAGES, IMAGES])


def test_firmware_does_not_go_where_files_are(written, tmp_path):
    (tmp_path / "mine.c").write_text("")
    with pytest.raises(FileExistsError, match="holds mine"):
        write_firmware(written.path, tmp_path, IMAGES)
