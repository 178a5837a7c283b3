"""Makes the emulated root from the distribution's arm64 packages and LiteRT's aarch64 wheel.

Nothing is installed on the machine: packages are downloaded with lists of apt's that lie in the
folder too, and unpacked there.
"""

import hashlib
import json
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence

from bmpq_tf.emulation import pins
from bmpq_tf.emulation.root import MANIFEST, QEMU, SITE, is_arm, pinned
from bmpq_tf.files import write_text

# The host's own would be shown to LiteRT otherwise, which then dies of a segmentation fault.
_CPUINFO = """processor\t: {number}
BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc \
dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""
_CORES = 2
_BY_HAND = (
    "docs/arm.md says how a board or a phone answers the same questions; a container of debian:12 "
    "does too."
)


class SetupError(RuntimeError):
    """The emulated root cannot be made here; the message says why."""


def check_machine(release: Mapping[str, str] | None = None) -> None:
    """Refuses what cannot work before anything is downloaded.

    Args:
        release: what /etc/os-release says; read from there by default.

    Raises:
        SetupError: the machine is ARM itself, is no Debian 12, or has no apt.
    """
    if is_arm():
        raise SetupError(
            f"This machine is ARM itself. Received: {platform.machine()}. What is verified here is "
            "verified on arm64; nothing needs to be emulated."
        )
    if release is None:
        try:
            release = platform.freedesktop_os_release()
        except OSError:
            release = {}
    name, version = pins.DISTRIBUTION
    if (release.get("ID"), release.get("VERSION_ID")) != (name, version):
        known = release.get("PRETTY_NAME", platform.system())
        raise SetupError(
            f"The emulated root is made of packages of Debian {version}, with its apt. Received: "
            f"{known}. {_BY_HAND}"
        )
    for tool in ("apt-get", "dpkg-deb", "dpkg"):
        if not shutil.which(tool):
            raise SetupError(f"'{tool}' is needed and was not found in PATH. {_BY_HAND}")


def make_root(root: pathlib.Path) -> None:
    """Makes the root whole, or leaves what was there; prints what goes on.

    Args:
        root: the folder, which is replaced.

    Raises:
        SetupError: a package cannot be had, or is not what was tested.
    """
    check_machine()
    root = root.absolute()
    if root.exists() and any(root.iterdir()) and not (root / MANIFEST).exists():
        raise SetupError(
            f"The folder holds something else. Received: '{root}'. Name an empty one, or one that "
            "is not there, with BMPQ_ARM64."
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    # Beside it, so that the finished folder only needs a new name.
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as work:
        made, downloads = pathlib.Path(work) / "root", pathlib.Path(work) / "downloads"
        made.mkdir()
        downloads.mkdir()
        print("packages of the distribution, with apt's signatures ...")
        packages = download_packages(pathlib.Path(work) / "apt", downloads)
        for package, path in packages.items():
            _unpack(package, path, made)
        print("wheels for aarch64 ...")
        unpack_wheels(downloads, made / SITE)
        _pretend_processor(made)
        write_text(made / MANIFEST, json.dumps({"pinned": pinned()}, indent=1) + "\n")
        if root.exists():
            shutil.rmtree(root)
        made.rename(root)


def download_packages(state: pathlib.Path, folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Downloads the distribution's packages, with apt's own check of signatures and checksums.

    Returns:
        The files by package.

    Raises:
        SetupError: apt does not get one, or a pinned version is not what was tested.
    """
    for part in ("lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True)
    (state / "status").touch()
    own = _run(["dpkg", "--print-architecture"], "Asking dpkg for the architecture").strip()
    apt = [
        "apt-get",
        "--quiet=2",
        f"-oDir::State::Lists={state / 'lists'}",
        f"-oDir::State::status={state / 'status'}",
        f"-oDir::Cache={state / 'cache'}",
        "-oAPT::Architecture=arm64",
        "-oAPT::Architectures::=arm64",
        f"-oAPT::Architectures::={own}",
        # It would want to own the folder.
        "-oAPT::Sandbox::User=root",
    ]
    _run([*apt, "update"], "Reading the distribution's lists of packages")
    names = {name: f"{name}:{own}" if name == pins.EMULATOR else name for name in pins.PACKAGES}
    try:
        _run([*apt, "download", *names.values()], "Downloading arm64 packages", folder)
    except SetupError as error:
        # Without a network `update` only warns.
        raise SetupError(
            f"{error} See whether `apt-get update` reaches the distribution here."
        ) from error
    found = {}
    for path in sorted(folder.glob("*.deb")):
        name, version = _run(
            ["dpkg-deb", "--show", "--showformat=${Package} ${Version}", str(path)], "Reading"
        ).split()
        if name in pins.PACKAGES:
            found[name] = path
            check_package(name, version, path)
    if missing := sorted(set(pins.PACKAGES) - set(found)):
        raise SetupError(f"apt did not give these packages: {', '.join(missing)}. {_BY_HAND}")
    return found


def check_package(name: str, version: str, path: pathlib.Path) -> None:
    """Compares a package with what was tested.

    Raises:
        SetupError: it has the tested version and another content.
    """
    tested, checksum = pins.PACKAGES[name]
    if version != tested:
        print(f"  {name} {version}, from the distribution's signed index; {tested} was tested")
    elif (found := hashlib.sha256(path.read_bytes()).hexdigest()) != checksum:
        raise SetupError(
            f"Package {name} {version} is not the one that was tested. Received: a file with "
            f"SHA-256 {found}, and not {checksum}. Nothing was unpacked."
        )


def unpack_wheels(folder: pathlib.Path, site: pathlib.Path) -> None:
    """Downloads the pinned wheels with pip, which checks their SHA-256, and unpacks them.

    Raises:
        SetupError: pip does not get one, or not one that was tested.
    """
    wanted = folder / "requirements.txt"
    wanted.write_text("".join(f"{one} --hash=sha256:{sha}\n" for one, sha in pins.WHEELS.items()))
    platforms = [f"--platform={name}" for name in pins.PLATFORMS]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary=:all:", f"--python-version={pins.PYTHON}", *platforms]
    _run([*command, f"--dest={folder}", f"--requirement={wanted}"], "Downloading wheels")
    wanted.unlink()
    for path in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(path) as wheel:
            wheel.extractall(site)


def _unpack(package: str, path: pathlib.Path, root: pathlib.Path) -> None:
    if package != pins.EMULATOR:
        _run(["dpkg-deb", "--extract", str(path), str(root)], f"Unpacking {package}")
        return
    # One program out of thirty, of 300 MB together.
    with tempfile.TemporaryDirectory(dir=root) as folder:
        _run(["dpkg-deb", "--extract", str(path), folder], f"Unpacking {package}")
        target = root / QEMU
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(str(pathlib.Path(folder) / QEMU), target)


def _pretend_processor(root: pathlib.Path) -> None:
    """qemu shows a program the files of the root first."""
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc" / "cpuinfo").write_text(
        "".join(_CPUINFO.format(number=number) for number in range(_CORES))
    )
    folder = root / "sys" / "devices" / "system" / "cpu"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("possible", "present"):
        (folder / name).write_text(f"0-{_CORES - 1}\n")


def _run(command: Sequence[str], what: str, folder: pathlib.Path | None = None) -> str:
    """Runs a program and returns what it prints.

    Raises:
        SetupError: it fails.
    """
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    if done.returncode:
        lines = [
            line
            for line in (done.stderr + done.stdout).splitlines()
            if re.match(r"\s*(E:|ERROR)", line)
        ]
        said = " ".join(lines[:3]) or (done.stderr + done.stdout).strip()[-300:]
        raise SetupError(
            f"{what} failed: {command[0]} ended with code {done.returncode}. It said: {said}"
        )
    return done.stdout
