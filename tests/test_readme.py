"""What the README says of layers and training modes leads to tests that exist."""

import pathlib
import re

from bmpq_tf.layers.registry import registered

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_every_mark_leads_to_a_test():
    links = re.findall(r'\]\((tests/[\w/]+\.py) "(\w+)"\)', README)
    assert len(links) > 40
    missing = {
        (path, name) for path, name in links if f"def {name}(" not in (ROOT / path).read_text()
    }
    assert not missing


def test_every_registered_layer_is_in_the_table():
    table = README[README.index("## What it takes") : README.index("## Which file")]
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


def test_every_path_that_the_documents_name_is_there():
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    named = {
        (document.name, path)
        for document in documents
        for path in re.findall(
            r"\b(?:bmpq_tf|tools|tests|examples|docs)/[\w/.-]*\w\.(?:py|md|yaml)",
            document.read_text(),
        )
    }
    missing = {(document, path) for document, path in named if not (ROOT / path).exists()}
    assert not missing
