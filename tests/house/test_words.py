"""Words: the field's, in code, messages and pages; the old ones in the one file that understands them."""

import re

from bench.house_counts import HOUSE, old_words, parts_of
from tests.house.offenders import listed


def test_no_old_word_is_left_in_the_code():
    found = HOUSE.old_words_in_code()
    assert not found, listed("old words in cortado/", found)


def test_no_old_word_is_left_in_readme_and_docs():
    found = HOUSE.old_words_in_pages()
    assert not found, listed("old words in README and docs", found)


def test_no_file_speaks_of_a_machine_or_an_issue():
    found = [
        f"{path.relative_to(HOUSE.root)}: {match.group()}"
        for path, text in HOUSE.texts.items()
        for match in re.finditer(r"/(?:work|home|root)/|issue #?\d|TODO|FIXME|XXX", text)
    ]
    assert not found, listed("machines, issues, things to do", found)


def test_an_old_word_is_found_and_its_english_neighbour_is_not():
    old = "the verdict of the plain network; tune it, held as a palette. The run goes on\nanew"
    assert [word for _, word in sorted(old_words(old))] == [
        "goes on", "held as", "palette", "plain network", "tune", "verdict", "anew",
    ]  # fmt: skip
    assert not old_words("fine-tuning: held out data in plain words, a codebook, a fortune; says why; tune = [")
    assert parts_of("SignalNet_said2") == ["signal", "net", "said", "2"]
