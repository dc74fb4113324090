"""Markup: what is escaped, and what the tags look like."""

from cortado.report.pages.markup import Markup, join, tag, text


def test_text_is_escaped_once() -> None:
    assert text("a<b>&\"'") == "a&lt;b&gt;&amp;&quot;&#x27;"
    assert text(text("a<b")) == "a&lt;b"
    assert text(12) == "12"


def test_tag_escapes_children_and_attributes() -> None:
    made = tag("td", "1 < 2", class_="number", data_label='"x"', title=None)
    assert made == '<td class="number" data-label="&quot;x&quot;">1 &lt; 2</td>'


def test_tag_keeps_markup_inside() -> None:
    assert tag("p", tag("b", "&"), " and ", None) == "<p><b>&amp;</b> and </p>"


def test_tag_leaves_void_elements_open() -> None:
    assert tag("meta", name="viewport") == '<meta name="viewport">'


def test_join_is_markup() -> None:
    assert isinstance(join("a", Markup("<i></i>")), Markup)
    assert join("<", Markup("<i></i>"), None) == "&lt;<i></i>"
