"""The emulated ARM processor: what is refused before it is made, and files that are verified on it.

What needs it is skipped where `bmpq-arm64` has not set it up.
"""

import pathlib
import zipfile

import numpy as np
import pytest
from conftest import needs_arm64, small_data, small_model

import bmpq_tf
from bmpq_tf.emulation import pins, root, session, setup
from bmpq_tf.export.tflite.interpreter import TFLiteModel
from bmpq_tf.export.verification.runtimes import check_place, runtime_on

BOOKWORM = {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian GNU/Linux 12"}


@pytest.mark.quick
def test_without_it_an_export_is_refused_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setenv(root.VARIABLE, str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="Set it up with: bmpq-arm64"):
        check_place("--on", "arm64")
    with pytest.raises(ValueError, match=r"Received: verify_on='phone'. Known: host, arm64"):
        check_place("verify_on", "phone")


@pytest.mark.quick
def test_an_arm_machine_needs_no_emulator(monkeypatch, tmp_path):
    monkeypatch.setenv(root.VARIABLE, str(tmp_path / "none"))
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    check_place("--on", "arm64")
    assert runtime_on("arm64") is TFLiteModel


def test_export_names_the_command_that_sets_it_up(monkeypatch, tmp_path):
    monkeypatch.setenv(root.VARIABLE, str(tmp_path / "none"))
    monkeypatch.setattr("bmpq_tf.export.stages.to_float_model", None)
    model = bmpq_tf.quantize_model(small_model())
    with pytest.raises(FileNotFoundError, match="Set it up with: bmpq-arm64"):
        bmpq_tf.export_tflite(model, tmp_path / "model.tflite", verify_on="arm64")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.quick
@pytest.mark.parametrize(
    ("release", "machine", "message"),
    [
        ({"ID": "ubuntu", "PRETTY_NAME": "Ubuntu 24.04"}, "x86_64", "Debian 12.*Ubuntu 24.04"),
        ({**BOOKWORM, "VERSION_ID": "13"}, "x86_64", "Received: Debian GNU/Linux 12"),
        ({}, "x86_64", "Debian 12"),
        (BOOKWORM, "aarch64", "is ARM itself"),
    ],
)
def test_another_machine_is_told_so(release, machine, message, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: machine)
    with pytest.raises(setup.SetupError, match=message):
        setup.check_machine(release)


@pytest.mark.quick
def test_a_package_of_the_tested_version_must_be_the_tested_one(tmp_path, capsys):
    path = tmp_path / "libc6.deb"
    path.write_bytes(b"something else")
    tested, _ = pins.PACKAGES["libc6"]
    with pytest.raises(setup.SetupError, match=r"libc6 .* is not the one that was tested"):
        setup.check_package("libc6", tested, path)
    setup.check_package("libc6", "9.99", path)
    assert f"libc6 9.99, from the distribution's signed index; {tested}" in capsys.readouterr().out


@pytest.mark.quick
def test_wheels_are_asked_for_by_their_checksums_and_unpacked(monkeypatch, tmp_path):
    def pip(command, what, folder=None):
        assert "--require-hashes" in command
        wanted = (tmp_path / "requirements.txt").read_text().splitlines()
        assert wanted == [f"{one} --hash=sha256:{sha}" for one, sha in pins.WHEELS.items()]
        with zipfile.ZipFile(tmp_path / "numpy.whl", "w") as wheel:
            wheel.writestr("numpy.py", "")

    monkeypatch.setattr(setup, "_run", pip)
    setup.unpack_wheels(tmp_path, tmp_path / "site")
    assert (tmp_path / "site" / "numpy.py").exists()


@pytest.mark.quick
def test_a_package_that_cannot_be_had_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(setup, "_run", lambda *given: "amd64\n")
    with pytest.raises(setup.SetupError, match="apt did not give these packages: libatomic1, "):
        setup.download_packages(tmp_path / "apt", tmp_path)
    with pytest.raises(setup.SetupError, match=r"Reading failed: sh ended with code 3. .* E: no"):
        real_run(["sh", "-c", "echo 'E: no such package' >&2; exit 3"], "Reading")


real_run = setup._run


@pytest.mark.quick
def test_a_folder_of_the_users_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(setup, "check_machine", lambda: None)
    (tmp_path / "mine").touch()
    with pytest.raises(setup.SetupError, match="holds something else"):
        setup.make_root(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.fixture(scope="module")
def trained():
    images, _ = small_data(40)
    return bmpq_tf.quantize_model(small_model()), images


@needs_arm64
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["size", "latency", "integer"])
def test_a_file_is_verified_there(trained, tmp_path, mode):
    model, images = trained
    more = {"calibrate_with": images} if mode == "integer" else {}
    path = tmp_path / "model.tflite"
    report = bmpq_tf.export_tflite(
        model, path, optimize_for=mode, verify_with=images, verify_on="arm64", **more
    )
    assert report.verified_on == "arm64"
    content = path.read_bytes()
    for here, there in zip(
        TFLiteModel(content)([images]), runtime_on("arm64")(content)([images]), strict=True
    ):
        np.testing.assert_allclose(here, there, atol=0 if mode == "integer" else 1e-5)


@needs_arm64
@pytest.mark.slow
def test_a_wrong_answer_there_refuses_the_file(trained, tmp_path, monkeypatch):
    model, images = trained
    honest = session.Interpreter.get_tensor
    monkeypatch.setattr(
        session.Interpreter, "get_tensor", lambda self, index: 1.01 * honest(self, index)
    )
    with pytest.raises(bmpq_tf.ExportError, match="Nothing was written"):
        bmpq_tf.export_tflite(
            model, tmp_path / "model.tflite", verify_with=images, verify_on="arm64"
        )
    assert list(tmp_path.iterdir()) == []
    bmpq_tf.export_tflite(model, tmp_path / "model.tflite", verify_with=images)


@needs_arm64
@pytest.mark.slow
def test_what_litert_refuses_there_is_said_as_here_and_a_dead_process_is_replaced():
    with pytest.raises(ValueError, match="not a valid Flatbuffer"):
        session.Interpreter(b"no model at all, but long enough for one")
    lost = session.shared()
    assert lost.versions().endswith("aarch64")
    lost._process.kill()
    with pytest.raises(RuntimeError, match=r"ended \(exit code -9\)"):
        lost.versions()
    assert session.shared().versions()
    with session.on_processor("max,sme=off") as other:
        assert session.shared() is other
    assert session.shared() is not other


def test_the_guest_is_a_program_of_its_own():
    """It runs where bmpq_tf is not installed."""
    text = pathlib.Path(session._GUEST).read_text()
    assert "bmpq_tf" not in text
