"""What `make docs` does beside MkDocs: pages for the files that the documents link to, and a look
for anything that would need the network to be read.

A link that leaves docs/, such as one to a test, leads to a page that shows that file, so that the
site is whole wherever it lies.
"""

import pathlib
import posixpath
import re
import textwrap

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parent.parent
# [text](../some/file.py "a tooltip"): what leaves docs/.
_LEAVING = re.compile(r'\]\((?P<path>(?:\.\./)+[\w./-]+)(?P<rest>(?:\s+"[^"]*")?\))')
# What a page loads by itself. A link that a reader may follow is none of these.
_LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=["']?(?:https?:)?//[^>]*>"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|preload|preconnect|icon))[^>]*"""
    r"""\bhref=["']?(?:https?:)?//[^>]*>"""
)
_LOADED_BY_STYLE = re.compile(r"""(?:@import\s*|url\()\s*["']?(?:https?:)?//[^)"'\s;]*""")
# What a guide says of the data and the model that its blocks use; the site shows them on the spot.
SETUP = (
    "This page goes on from [setup.py](setup.py): paste its code first, or start with "
    "`python -i docs/guides/setup.py`."
)
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".md": "markdown"}


def _source(page: str, link: str) -> str | None:
    """Returns the path, from the root of the repository, of a file outside of docs/ that a page
    links to; `None` for everything else.
    """
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    leaves = not path.startswith(("docs/", ".."))
    return path if leaves and (ROOT / path).is_file() else None


def on_files(files, config):
    """Adds a page for each file outside of docs/ that a document links to."""
    linked = {
        path
        for file in files.documentation_pages()
        for found in _LEAVING.finditer(file.content_string)
        if (path := _source(file.src_uri, found["path"]))
    }
    for path in sorted(linked):
        language = _LANGUAGES.get(pathlib.Path(path).suffix, "text")
        content = (
            f"---\ntitle: {path}\nsearch:\n  exclude: true\n---\n\n# {path}\n\n"
            f'``````{language} linenums="1"\n{(ROOT / path).read_text()}\n``````\n'
        )
        files.append(File.generated(config, f"source/{path}.md", content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    """Leads links that leave docs/ to those pages, and shows what guides begin with."""
    if SETUP in markdown:
        code = (ROOT / "docs/guides/setup.py").read_text()
        block = textwrap.indent(f"```python\n{code}```", "    ")
        title = "The data and the model of this page: run this first"
        markdown = markdown.replace(SETUP, f'??? example "{title}"\n{block}')

    def inside(found: re.Match) -> str:
        path = _source(page.file.src_uri, found["path"])
        if path is None:
            return found[0]
        start = posixpath.dirname(page.file.src_uri) or "."
        return f"]({posixpath.relpath(f'source/{path}.md', start)}{found['rest']}"

    return markdown if page.file.src_uri.startswith("source/") else _LEAVING.sub(inside, markdown)


def on_page_content(html, page, config, files):
    """Leads a mark whose tooltip names a test to the line where that test begins."""

    def at_line(found: re.Match) -> str:
        lines = (ROOT / found["path"]).read_text().splitlines()
        at = [i for i, line in enumerate(lines, 1) if line.startswith(f"def {found['test']}(")]
        return f'{found[1]}#__codelineno-0-{at[0]}" title="{found["test"]}"' if at else found[0]

    return re.sub(
        r'(href="[./]*source/(?P<path>[\w./-]+?)\.html)" title="(?P<test>\w+)"', at_line, html
    )


def on_post_build(config):
    """Raises if a built page would load something from elsewhere."""
    site = pathlib.Path(config["site_dir"])
    from_elsewhere = [
        f"{path.relative_to(site)}: {found[0][:200]}"
        for pattern, suffixes in ((_LOADED, (".html",)), (_LOADED_BY_STYLE, (".html", ".css")))
        for path in sorted(site.rglob("*"))
        if path.suffix in suffixes
        for found in pattern.finditer(path.read_text(errors="replace"))
    ]
    if from_elsewhere:
        raise PluginError(
            "Pages must be readable without a network. These load something from elsewhere: "
            + "; ".join(from_elsewhere[:10])
        )
