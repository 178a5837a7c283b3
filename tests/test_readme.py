"""What the README says of layers and training modes leads to tests that exist."""

import pathlib
import re

import pytest

from bmpq_tf.layers.registry import registered

pytestmark = pytest.mark.quick

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
