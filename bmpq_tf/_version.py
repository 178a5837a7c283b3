"""The version, apart from imports so that packaging can read it."""

__version__ = "0.2.0"
