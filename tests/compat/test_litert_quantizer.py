"""The stages of litert-quantizer below its public class."""

import inspect

import pytest

from bmpq_tf._compat import litert_quantizer as compat

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (compat.ModelModifier.modify_model, {"params", "enable_progress_bar"}),
        (compat.ParamsGenerator.generate_quantization_parameters, {"enable_progress_bar"}),
        (compat.symmetric_quantize_bias_tensor, {"bias_content", "input_tensor_quant_params"}),
        (
            compat.tensor_zp_scale_from_min_max,
            {"min_value", "max_value", "num_bits", "symmetric", "granularity"},
        ),
        (compat.RecipeManager.load_quantization_recipe, set()),
        (compat.RecipeManager.add_quantization_config, set()),
    ],
)
def test_a_function_takes_what_it_took(function, parameters):
    assert parameters <= set(inspect.signature(function).parameters), function.__qualname__


@pytest.mark.parametrize("name", ["_serialize_small_model", "_serialize_model"])
def test_the_modifier_serialises_by(name):
    assert callable(getattr(compat.ModelModifier, name, None)), name


@pytest.mark.parametrize(
    "name",
    [
        "UniformQuantParams",
        "TensorTransformationParams",
        "OpToTensorParams",
        "QuantTransformation",
        "QuantGranularity",
        "TFLOperationName",
    ],
)
def test_the_types_have(name):
    assert hasattr(compat.qtyping, name), name


def test_the_recipes_have_static_int8():
    assert compat.recipe.static_wi8_ai8()
