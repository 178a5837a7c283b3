"""litert-quantizer's stages below its public `Quantizer`, as of 0.11.

See `tests/compat/test_litert_quantizer.py`.
"""

from litert_quantizer import qtyping, recipe
from litert_quantizer.algorithms.uniform_quantize.uniform_quantize_tensor import (
    symmetric_quantize_bias_tensor,
    tensor_zp_scale_from_min_max,
)
from litert_quantizer.model_modifier import ModelModifier
from litert_quantizer.params_generator import ParamsGenerator
from litert_quantizer.recipe_manager import RecipeManager

__all__ = [
    "ParamsGenerator",
    "RecipeManager",
    "modified",
    "qtyping",
    "recipe",
    "symmetric_quantize_bias_tensor",
    "tensor_zp_scale_from_min_max",
]


class _Unserialised(ModelModifier):
    """Keeps the model that is otherwise serialised at once, and would have to be parsed again."""

    def _serialize_small_model(self, model):
        self.modified = model
        return b""

    def _serialize_model(self, model, *_, **__):
        self.modified = model
        return b""


def modified(model, instructions: dict[str, qtyping.TensorTransformationParams]):
    """Returns a copy of a parsed model with instructions carried out.

    Constants that stay are shared with it.
    """
    modifier = _Unserialised(model)
    modifier.modify_model(instructions, enable_progress_bar=False)
    return modifier.modified
