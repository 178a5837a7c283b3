"""Pages of the notebooks for `make docs`: their cells, and what these printed and drew."""

import json
import pathlib

from mkdocs.structure.files import File

FOLDER = pathlib.Path(__file__).parent.parent / "docs" / "notebooks"


def as_markdown(notebook: dict) -> str:
    """Returns a notebook as Markdown: code, and below it what it printed and drew."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code":
            parts += [f"```python\n{source}\n```", *map(_output, cell["outputs"])]
    return "\n\n".join(parts) + "\n"


def _output(output: dict) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return f"![What the cell drew](data:image/png;base64,{''.join(data['image/png']).strip()})"
    text = "".join(output.get("text") or data.get("text/plain") or ())
    return f"```text\n{text.rstrip()}\n```"


def on_files(files, config):
    """Adds a page for each notebook, from which the notebook itself can be had."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        page = as_markdown(json.loads(path.read_text()))
        page += f"\n[The notebook itself]({path.name})\n"
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page))
    return files
