"""What an export raises and warns of."""


class ConversionError(RuntimeError):
    """TFLite has no builtin operator for something in the model.

    Example:
        >>> odd = keras.Model(float_model.input, keras.ops.erfinv(float_model.output))
        >>> try:
        ...     bmpq_tf.export_tflite(bmpq_tf.quantize_model(odd), folder / "odd.tflite")
        ... except bmpq_tf.ConversionError as error:
        ...     print(error)
        Model ... does not convert to TFLite builtins: TFLite has no builtin for tf.Erfinv ...
    """


class ExportError(RuntimeError):
    """The file would not be what the model is, so there is none.

    Example:
        >>> sparse = keras.layers.Activation("sparsemax", name="sparse")(float_model.output)
        >>> model = bmpq_tf.quantize_model(keras.Model(float_model.input, sparse))
        >>> options = {"optimize_for": "integer", "calibrate_with": images}
        >>> try:
        ...     bmpq_tf.export_tflite(model, folder / "model.tflite", **options)
        ... except bmpq_tf.ExportError as error:
        ...     print(error)
        Model ... cannot be an integer-only file: TOPK_V2 of layer 'sparse' (Activation), ...
    """


class FloatKernelsWarning(UserWarning):
    """Trained kernels lie in the file as floats, since the converter changed them in an unknown
    way.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", bmpq_tf.FloatKernelsWarning)
        ...     report = bmpq_tf.export_tflite(model, folder / "model.tflite")
        >>> max(layer.stored_bits for layer in report.layers)
        8
    """


class ConstantColumnsWarning(UserWarning):
    """Columns of an int8 output hold one single value in the file, where Keras's answers vary.

    Example:
        >>> import warnings
        >>> scaled = keras.layers.Rescaling([1e4] + 9 * [1.0])(float_model.output)
        >>> model = bmpq_tf.quantize_model(keras.Model(float_model.input, scaled))
        >>> options = {"optimize_for": "integer", "calibrate_with": images}
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     report = bmpq_tf.export_tflite(model, folder / "model.tflite", **options)
        >>> print(caught[-1].message)
        An int8 output has one scale, too coarse for columns that vary by less than its steps: ...
    """


def first_line(error: Exception) -> str:
    """Returns the first line of what an error says, or its class's name where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") + "." if text else f"{type(error).__name__}."
