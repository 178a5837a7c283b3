"""LiteRT's flatbuffer schema and its tools, which its documentation does not list.

See `tests/compat/test_litert.py`.
"""

from typing import Any

from ai_edge_litert import schema_py_generated
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from ai_edge_litert.tools import flatbuffer_utils as _flatbuffer_utils

# The generated classes tell the types that their fields start with, not those that they take.
schema: Any = schema_py_generated
flatbuffer_utils: Any = _flatbuffer_utils

__all__ = ["Interpreter", "OpResolverType", "flatbuffer_utils", "schema"]
