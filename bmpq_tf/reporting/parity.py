"""How the file's answers compare with Keras's, as labels and values."""

import math

from bmpq_tf.export.report import ExportReport


def parity_facts(report: ExportReport) -> tuple[tuple[str, str], ...]:
    """Returns what a report tells of its file's answers, in the words of a person."""
    parity = report.parity
    where = "" if report.verified_on == "host" else f", on {report.verified_on}"
    inputs = "random inputs" if parity.generated else "given inputs"
    told = [("compared on", f"{parity.examples:,} {inputs}{where}")]
    if parity.compared:
        same = "labels" if parity.labels else "top-1"
        told.append((f"{same} equal to Keras", f"{parity.agreement:.2%}"))
    told += [
        (
            "largest difference",
            f"{parity.max_abs_diff:.2g}; the largest answer is {parity.logit_scale:.3g}",
        ),
        (
            "root mean square of the differences",
            f"{parity.rms:.2g} of the answers' own; up to {parity.rms_limit:g} is allowed",
        ),
    ]
    if math.isfinite(parity.tolerance) and parity.allowed is None:
        told.append(("largest difference allowed", f"{parity.tolerance:.2g}"))
    if parity.ties:
        told.append(
            (
                "ties in rounding",
                f"{parity.ties:,} values at the edge of two steps; without them the largest "
                f"difference is {parity.unexplained_diff:.2g}",
            )
        )
    if parity.near_ties:
        told.append(("nearly equal classes, not counted", f"{parity.near_ties:,}"))
    told.append(("verdict", parity.problem or "the file answers as the Keras model does"))
    if parity.caution:
        told.append(("look at", parity.caution))
    if report.micro:
        told.append(("microcontroller", report.micro.in_words(report.tflite_bytes)))
    return tuple(told)
