"""The peers' virtual environments.

Made from pinned requirements where they can be, named with a word where not.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import venv

# One training of a peer's, imports and tracing included.
_LIMIT = 300.0
PEERS = ("tfmot", "qkeras", "hgq2")
# TensorFlow 2.15, which QKeras needs, has wheels for no later Python.
_PYTHON = "python3.11"
_HERE = pathlib.Path(__file__).parent


class PeerUnavailableError(RuntimeError):
    """A peer cannot be installed or run here."""


def python_of(peer: str, folder: pathlib.Path) -> pathlib.Path:
    """Returns the interpreter of a peer's environment, which is made at the first call.

    Raises:
        PeerUnavailableError: there is no Python 3.11, or the requirements cannot be installed.
    """
    home, requirements = folder / peer, _HERE / f"{peer}.txt"
    python, stamp = home / "bin" / "python", home / "requirements.txt"
    if stamp.exists() and stamp.read_text() == requirements.read_text():
        return python
    interpreter = sys.executable if sys.version_info[:2] == (3, 11) else shutil.which(_PYTHON)
    if interpreter is None:
        raise PeerUnavailableError(f"no {_PYTHON} on this machine")
    if interpreter == sys.executable:
        venv.create(home, clear=True, with_pip=True)
    else:
        _run([interpreter, "-m", "venv", "--clear", str(home)], 300)
    _run([str(python), "-m", "pip", "install", "--quiet", "--requirement", str(requirements)], 1800)
    shutil.copyfile(requirements, stamp)
    return python


def train_in_turn(
    peer: str,
    folder: pathlib.Path,
    network: str,
    batch_size: int,
    steps: int,
    rounds: int,
    seconds: float,
) -> dict[str, list[float]]:
    """Returns seconds a round of the peer's float and quantized networks, by `peers/train.py` in
    the peer's environment.

    No further round starts after `seconds`.

    Raises:
        PeerUnavailableError: it cannot be installed, its training failed, or it did not end within
            five minutes.
    """
    script = _HERE / "train.py"
    printed = _run(
        [
            str(python_of(peer, folder)),
            str(script),
            peer,
            network,
            *map(str, (batch_size, steps, rounds, seconds)),
        ],
        _LIMIT,
    )
    return json.loads(printed.strip().splitlines()[-1])


def _run(command: list[str], seconds: float) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise PeerUnavailableError(f"it did not end within {seconds:.0f} seconds") from error
    except OSError as error:
        raise PeerUnavailableError(str(error)) from error
    if done.returncode:
        raise PeerUnavailableError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return done.stdout
