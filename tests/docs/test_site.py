"""The pages as a site: each has its place, links stay in the site, and the reference has every public name."""

import importlib.util
import re

import pytest
import yaml

import cortado
from tests.docs.blocks import PAGES, ROOT

SETTINGS = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf8"))
LINK = re.compile(r"\]\(([^)\s]+)\)")


def hook():
    spec = importlib.util.spec_from_file_location("site_hook", ROOT / "docs" / "site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def leaves(tree):
    return (
        [tree]
        if isinstance(tree, str)
        else [leaf for part in tree for leaf in leaves(part.values() if isinstance(part, dict) else part)]
    )


def test_every_page_has_one_place_in_the_menu():
    outside = hook().OUTSIDE
    pages = [page.name for page in PAGES if page.parent.name == "docs"] + list(outside.values())
    assert sorted(leaves(SETTINGS["nav"])) == sorted(pages)


def test_reference_has_every_public_name():
    found = re.findall(r"^::: cortado\.(\w+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf8"), re.MULTILINE)
    assert sorted(found) == sorted(cortado.__all__)


@pytest.mark.parametrize(
    ("text", "folder", "wanted"),
    [
        ("[guide](docs/guide.md#recipes)", "", "[guide](guide.md#recipes)"),
        ("![R](docs/report.png)", "", "![R](report.png)"),
        ("[install](../README.md#install)", "docs/", "[install](index.md#install)"),
        ("[recipes](../recipes) and [cost](cost.md)", "docs/", "recipes and [cost](cost.md)"),
        ("[here](#below), [a paper](https://arxiv.org)", "docs/", "[here](#below), [a paper](https://arxiv.org)"),
    ],
)
def test_links_stay_in_the_site(text, folder, wanted):
    module = hook()
    assert module.LINK.sub(lambda found: module.in_site(*found.groups(), folder=folder), text) == wanted
