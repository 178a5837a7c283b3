"""C arrays of a file compile for microcontrollers and stay in flash, aligned as TFLM reads them."""

import pytest
from cortex_m import CORES, compile_for, needs_cortex_m

pytestmark = [pytest.mark.quick, needs_cortex_m]
_ARRAY = "alignas(16) {}const unsigned char model[] = {{{}}};\n"


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("language", ["c", "cc"])
def test_a_models_bytes_compile_and_stay_in_flash(core, language, tmp_path):
    source = tmp_path / f"model.{language}"
    heading = "#include <stdalign.h>\n" if language == "c" else ""
    array = _ARRAY.format("" if language == "c" else "extern ", ", ".join(map(str, range(100))))
    source.write_text(heading + array)
    model = compile_for(core, source, tmp_path)["model"]
    assert model.section.startswith(".rodata")
    assert model.bytes == 100
    assert model.alignment % 16 == model.address % 16 == 0


def test_what_warns_does_not_pass(tmp_path):
    source = tmp_path / "model.c"
    source.write_text("const unsigned char model[] = {300};\n")
    with pytest.raises(AssertionError, match="changes value"):
        compile_for("cortex-m4", source, tmp_path)
