"""What an export raises and warns of."""


class ConversionError(RuntimeError):
    """TFLite has no builtin operator for something in the model."""


class ExportError(RuntimeError):
    """The file would not be what the model is, so there is none."""


class FloatKernelsWarning(UserWarning):
    """Trained kernels lie in the file as floats, since the converter changed them in an unknown
    way.
    """


class ConstantColumnsWarning(UserWarning):
    """Columns of an int8 output hold one single value in the file, where Keras's answers vary."""


def first_line(error: Exception) -> str:
    """Returns the first line of what an error says, or its class's name where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") + "." if text else f"{type(error).__name__}."
