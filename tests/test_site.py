"""What `make docs` does beside MkDocs."""

import pathlib
import types

import pytest

exceptions = pytest.importorskip("mkdocs.exceptions", reason="the extra docs is not installed")
# Scripts of tools/.
import site_hooks as hooks  # noqa: E402
import site_notebooks as notebooks  # noqa: E402

pytestmark = pytest.mark.quick


def page(path: str):
    return types.SimpleNamespace(file=types.SimpleNamespace(src_uri=path))


def test_a_link_that_leaves_docs_leads_to_a_page_of_the_site():
    text = '[✓](../../tests/test_site.py "test_x"), [here](files.md), [gone](../../tests/none.py)'
    led = hooks.on_page_markdown(text, page("guides/some.md"), None, None)
    assert led == (
        '[✓](../source/tests/test_site.py.md "test_x"), [here](files.md), '
        "[gone](../../tests/none.py)"
    )


def test_a_mark_leads_to_the_line_of_its_test():
    name = "test_a_mark_leads_to_the_line_of_its_test"
    html = f'<a href="../source/tests/test_site.py.html" title="{name}">'
    led = hooks.on_page_content(html, page("guides/some.md"), None, None)
    line = int(led.split("#__codelineno-0-")[1].split('"')[0])
    assert pathlib.Path(__file__).read_text().splitlines()[line - 1].startswith(f"def {name}(")


def test_a_guide_shows_what_it_says_to_run_first():
    shown = hooks.on_page_markdown(hooks.SETUP, page("guides/some.md"), None, None)
    assert "float_model = keras.Sequential(" in shown
    assert all(not line or line[0] in " ?" for line in shown.splitlines())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<script src="https://elsewhere.example/x.js"></script>'),
        ("a.html", "<link href=//elsewhere.example/x.css rel=stylesheet>"),
        ("a.html", "<style>@import url(https://elsewhere.example/x.css)</style>"),
        ("a.css", '@font-face{src: url("https://elsewhere.example/x.woff2")}'),
    ],
)
def test_a_page_that_loads_something_from_elsewhere_is_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(exceptions.PluginError, match=r"elsewhere\.example"):
        hooks.on_post_build({"site_dir": str(tmp_path)})


def test_a_link_to_follow_loads_nothing(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="https://elsewhere.example">x</a><link rel="canonical" href="https://x.example">'
        '<img src="images/a.png"><script src="assets/a.js"></script>'
    )
    assert hooks.on_post_build({"site_dir": str(tmp_path)}) is None


def test_a_notebook_is_a_page_with_what_its_cells_printed_and_drew():
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["2\n", "3\n"]},
        {"output_type": "display_data", "data": {"image/png": "QUJD\n", "text/plain": ["a plot"]}},
        {"output_type": "execute_result", "data": {"text/plain": ["4"]}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# One\n", "two"]},
        {"cell_type": "code", "source": ["print(2)\n", "print(3)"], "outputs": outputs},
    ]
    assert notebooks.as_markdown({"cells": cells}) == (
        "# One\ntwo\n\n```python\nprint(2)\nprint(3)\n```\n\n```text\n2\n3\n```\n\n"
        "![What the cell drew](data:image/png;base64,QUJD)\n\n```text\n4\n```\n"
    )
