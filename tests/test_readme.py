"""What README and the documents promise: tests that exist, files that are there, an example that
runs, every public name.
"""

import pathlib
import re

import pytest

import bmpq_tf
from bmpq_tf.layers.registry import registered

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = sorted((ROOT / "docs").rglob("*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]


@pytest.mark.quick
def test_every_mark_leads_to_a_test():
    links = [
        (page, path, name)
        for page in PAGES
        for path, name in re.findall(r'\]\((\.\.[\w/.]+\.py) "(\w+)"\)', page.read_text())
    ]
    assert len(links) > 40
    missing = {
        (page.name, name)
        for page, path, name in links
        if f"def {name}(" not in (page.parent / path).resolve().read_text()
    }
    assert not missing


@pytest.mark.quick
def test_every_registered_layer_is_in_the_table():
    page = (ROOT / "docs/what_it_takes.md").read_text()
    table = page[page.index("## Layers") : page.index("## Ways to train")]
    assert not [
        entry.float_class.__name__
        for entry in registered()
        if not re.search(rf"\b{entry.float_class.__name__}\b", table)
    ]


def test_the_first_example_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(re.search(r"```python\n(.*?)```", README, re.DOTALL)[1], "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "fewer parameter bits than float32" in printed
    assert float(re.search(r"([\d.]+)x smaller than float32", printed)[1]) >= 10
    assert (tmp_path / "model.tflite").exists()


@pytest.mark.quick
def test_readme_is_short_enough_to_be_read():
    assert README.count("\n") <= 120


@pytest.mark.quick
def test_every_path_that_the_documents_name_is_there():
    named = {
        (document.name, path)
        for document in DOCUMENTS
        for path in re.findall(
            r"\b(?:bmpq_tf|tools|tests|examples|docs)/[\w/.-]*\w\.(?:py|md|yaml)",
            document.read_text(),
        )
    }
    missing = {(document, path) for document, path in named if not (ROOT / path).exists()}
    assert not missing


@pytest.mark.quick
def test_every_link_between_documents_leads_to_a_file():
    missing = [
        (document.name, link)
        for document in DOCUMENTS
        for link in re.findall(r'\]\(([\w./-]+)(?:#[\w-]+)?(?: "\w+")?\)', document.read_text())
        if not (document.parent / link).exists()
    ]
    assert not missing


@pytest.mark.quick
def test_every_public_name_is_in_the_reference():
    named = re.findall(
        r"^::: bmpq_tf\.([\w.]+)$",
        "\n".join(page.read_text() for page in sorted((ROOT / "docs/api").glob("*.md"))),
        re.MULTILINE,
    )
    public = set(bmpq_tf.__all__) - {"__version__", "layers"}
    assert sorted(named) == sorted(public | {f"layers.{name}" for name in bmpq_tf.layers.__all__})
