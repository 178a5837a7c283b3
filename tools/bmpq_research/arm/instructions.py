"""One instruction of int8 arithmetic, run by an emulator and computed by NumPy.

A program of a few lines reads its operands, executes the instruction once and writes what it left,
so that a wrong answer is the emulator's and nobody else's.
"""

import dataclasses
import os
import pathlib
import subprocess
import tempfile

import numpy as np

# Reads an accumulator and two vectors of 16 bytes; writes the accumulator.
_VECTORS = """
.arch armv8.6-a+i8mm+dotprod
.global _start
_start: sub sp, sp, #64
again:  mov x0, #0
        mov x1, sp
        mov x2, #48
        mov x8, #63
        svc #0
        cmp x0, #48
        b.ne done
        ldr q0, [sp]
        ldr q1, [sp, #16]
        ldr q2, [sp, #32]
        {instruction}
        str q0, [sp]
        mov x0, #1
        mov x1, sp
        mov x2, #16
        mov x8, #64
        svc #0
        b again
done:   mov x0, #0
        mov x8, #93
        svc #0
"""
# Reads two vectors of a streaming vector's length; writes the whole tile.
_TILE = """
.arch armv9-a+sme+i8mm
.global _start
_start: rdsvl x9, #1
        adrp x19, buffer
        add x19, x19, :lo12:buffer
        add x20, x19, x9
        add x21, x20, x9
again:  mov x0, #0
        mov x1, x19
        lsl x2, x9, #1
        mov x8, #63
        svc #0
        cmp x0, x9, lsl #1
        b.ne done
        smstart
        zero {{za}}
        ptrue p0.b
        ld1b {{z0.b}}, p0/z, [x19]
        ld1b {{z1.b}}, p0/z, [x20]
        {instruction}
        mov w12, #0
        mov x3, x21
        lsr x4, x9, #2
row:    st1w {{za0h.s[w12, 0]}}, p0, [x3]
        add x3, x3, x9
        add w12, w12, #1
        cmp x12, x4
        b.lt row
        smstop
        mov x0, #1
        mov x1, x21
        mul x2, x9, x4
        mov x8, #64
        svc #0
        b again
done:   mov x0, #0
        mov x8, #93
        svc #0
.bss
.balign 16
buffer: .skip 100000
"""
_COUNT = 1024


@dataclasses.dataclass(frozen=True)
class Instruction:
    """An instruction and what it does.

    Attributes:
        name: as the assembler takes it, without operands.
        left, right: the operands' types.
        kind: `"dot"`: four products to a sum; `"matrix"`: 2x8 times 8x2; `"outer"`: each four of
            one vector with each four of the other.
    """

    name: str
    left: type
    right: type
    kind: str


_I, _U = np.int8, np.uint8
INSTRUCTIONS = (
    Instruction("sdot", _I, _I, "dot"),
    Instruction("udot", _U, _U, "dot"),
    Instruction("usdot", _U, _I, "dot"),
    Instruction("smmla", _I, _I, "matrix"),
    Instruction("ummla", _U, _U, "matrix"),
    Instruction("usmmla", _U, _I, "matrix"),
    Instruction("smopa", _I, _I, "outer"),
    Instruction("umopa", _U, _U, "outer"),
    Instruction("usmopa", _U, _I, "outer"),
    Instruction("sumopa", _I, _U, "outer"),
)


def wrong_share(one: Instruction, emulator: list[str], binutils: str) -> float:
    """Returns the share of values that an emulator computes wrongly.

    Args:
        one: the instruction.
        emulator: the command that runs an arm64 program, with its flags.
        binutils: the prefix of the assembler and the linker, such as `aarch64-linux-gnu-`.

    Raises:
        RuntimeError: the program does not end well; the processor may not have the instruction.
    """
    outer = one.kind == "outer"
    operands = "za0.s, p0/m, p0/m, z0.b, z1.b" if outer else "v0.4s, v1.16b, v2.16b"
    text = (_TILE if outer else _VECTORS).format(instruction=f"{one.name} {operands}")
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder) / "program"
        program.with_suffix(".s").write_text(text)
        for command in (
            [f"{binutils}as", f"{program}.s", "-o", f"{program}.o"],
            [f"{binutils}ld", f"{program}.o", "-o", str(program)],
        ):
            subprocess.run(command, check=True)
        size = 32 if outer else 16
        given, expected = _operands(one, size)
        fed = pathlib.Path(folder) / "operands"
        fed.write_bytes(given)
        with open(fed, "rb") as stream:
            done = subprocess.run(
                [*emulator, str(program)], stdin=stream, capture_output=True, check=False
            )
    if done.returncode or len(done.stdout) != expected.nbytes:
        raise RuntimeError(
            f"'{one.name}' ended with code {done.returncode} and {len(done.stdout)} bytes, not "
            f"{expected.nbytes}, under {os.path.basename(emulator[0])} {emulator[1:]}."
        )
    received = np.frombuffer(done.stdout, np.int32).reshape(expected.shape)
    return float((received != expected).mean())


def _operands(one: Instruction, size: int) -> tuple[bytes, np.ndarray]:
    generator = np.random.default_rng(0)
    left, right = (
        generator.integers(np.iinfo(kind).min, np.iinfo(kind).max + 1, (_COUNT, size)).astype(kind)
        for kind in (one.left, one.right)
    )
    wide = left.astype(np.int32), right.astype(np.int32)
    if one.kind == "outer":
        fours = [side.reshape(_COUNT, -1, 4) for side in wide]
        return (
            np.concatenate([left.view(_U), right.view(_U)], 1).tobytes(),
            np.einsum("nik,njk->nij", *fours).astype(np.int32),
        )
    start = generator.integers(-(2**20), 2**20, (_COUNT, 4)).astype(np.int32)
    if one.kind == "dot":
        sums = (wide[0] * wide[1]).reshape(_COUNT, 4, 4).sum(-1)
    else:
        sums = np.einsum("nik,njk->nij", *(side.reshape(_COUNT, 2, 8) for side in wide))
    given = np.concatenate([start.view(_U), left.view(_U), right.view(_U)], 1).tobytes()
    return given, (start + sums.reshape(_COUNT, 4)).astype(np.int32)
