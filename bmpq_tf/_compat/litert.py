"""LiteRT's flatbuffer schema and its tools, which its documentation does not list.

See `tests/compat/test_litert.py`.
"""

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from ai_edge_litert.tools import flatbuffer_utils

__all__ = ["Interpreter", "OpResolverType", "flatbuffer_utils", "schema"]
