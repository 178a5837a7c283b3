"""How `make docs` reads docstrings: the section "Example:" holds code."""

import griffe


class Examples(griffe.Extension):
    """Gives the section the name under which griffe takes its lines for examples."""

    def on_object(self, *, obj: griffe.Object, **_) -> None:
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
