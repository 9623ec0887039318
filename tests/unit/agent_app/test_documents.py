import io
import shutil
from pathlib import Path

import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from agent_app.errors import InvalidRequest
from agent_app.knowledge.document import Section, Unreadable
from agent_app.knowledge.files import SUFFIXES, find_files, read_file

HTML = b"""<!doctype html><html><head><title>Site &middot; Page</title>
<link rel="canonical" href="https://docs.example.com/ports"><style>p { color: red }</style></head>
<body><nav><a href=/>Home</a></nav><h1>The <em>ports</em></h1><p>First
line.<br>Second &amp; last.</p><script>alert("no")</script>
<h2>Inside</h2><ul><li>One<li>Two</ul><table><tr><td>a<td>b</table>
<pre>x = 1
y = 2</pre><p>Unclosed <b>bold<div>End</div><footer>Imprint</footer>"""


def pdf(*pages: str) -> bytes:
    """A PDF with a line of text on each page, "" for a page without."""
    writer = PdfWriter()
    for text in pages:
        page = writer.add_blank_page(200, 200)
        font = DictionaryObject({
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        })  # fmt: skip
        fonts = DictionaryObject({NameObject("/F1"): font})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        stream = DecodedStreamObject()
        if text:
            stream.set_data(f"BT /F1 12 Tf 20 100 Td ({text}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(stream)
    writer.add_metadata({"/Title": "Manual"})
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def test_html_gives_title_sections_and_address_but_no_script_or_navigation() -> None:
    document = read_file(HTML, name="a/page.html")
    assert (document.title, document.url) == ("The ports", "https://docs.example.com/ports")
    top, inside = document.sections
    assert (top.headings, inside.headings) == ((), ("Inside",))
    assert "First line.\nSecond & last." in top.text
    assert "- One" in inside.text and "a b" in inside.text and "x = 1\ny = 2" in inside.text
    whole = top.text + inside.text
    assert "End" in whole
    for left_out in ("alert", "Home", "color", "Imprint"):
        assert left_out not in whole


def test_html_that_is_broken_in_any_way_is_read_all_the_same() -> None:
    for text in (
        b"<",
        b"<p",
        b"</nav></x><h1>",
        b"<nav><p>a",
        b"<!--",
        b"<![CDATA[",
        b"&#xffffffff;",
    ):
        read_file(text, name="x.html")
    assert read_file(b"</script><p>seen", name="x.htm").sections == (Section((), "seen"),)


def test_a_heading_within_code_is_no_heading() -> None:
    text = (
        b"# T\n\n```sh\n# not one\nls\n```\n\n~~~~\n# nor\n~~~\n# this\n~~~~\n\n## Real\n\nYes.\n"
    )
    document = read_file(text, name="x.md")
    assert [section.headings for section in document.sections] == [(), ("Real",)]
    assert "# not one" in document.sections[0].text
    assert "# this" in document.sections[0].text


def test_underlined_headings_count_and_rules_tables_and_lists_do_not() -> None:
    text = b"Title\n=====\n\nText.\n\nPart\n----\n\n- item\n---\n\na | b\n--- | ---\n\n---\nEnd.\n"
    document = read_file(text, name="x.md")
    assert document.title == "Title"
    assert [section.headings for section in document.sections] == [(), ("Part",)]


def test_front_matter_names_title_and_address() -> None:
    text = b"---\ntitle: From the front\nurl: https://e.com/a\n---\n# Heading\n\nText.\n"
    document = read_file(text, name="x.md")
    assert (document.title, document.url) == ("From the front", "https://e.com/a")
    assert document.sections == (Section(("Heading",), "Text."),)
    assert read_file(b"---\n[: no\n---\nText.", name="x.md").title == "x"


def test_plain_text_is_called_by_its_file() -> None:
    document = read_file("\ufeffNo # heading.\n# none".encode(), name="notes/today.txt")
    assert document.title == "today"
    assert document.sections == (Section((), "No # heading.\n# none"),)


def test_a_pdf_has_a_section_for_each_page() -> None:
    document = read_file(pdf("First page", "", "Third page"), name="m.pdf")
    assert document.title == "Manual"
    assert document.sections == (
        Section(("page 1",), "First page"),
        Section(("page 3",), "Third page"),
    )


def test_a_folder_that_goes_meanwhile_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.md", "sub/b.md"):
        (tmp_path / name).write_text("x")
    found = find_files(tmp_path)
    assert next(found)[0] == "a.md"
    shutil.rmtree(tmp_path / "sub")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        next(found)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.md", b"caf\xe9", "not UTF-8 at byte 3"),
        ("a.txt", b"a\0b", "NUL"),
        ("a.pdf", b"%PDF-1.7 nonsense", "not a PDF that can be read"),
        ("a.pdf", b"", "not a PDF that can be read"),
        ("scan.pdf", pdf(""), "OCR"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_reason(name: str, content: bytes, said: str) -> None:
    with pytest.raises(Unreadable, match=said):
        read_file(content, name=name)


def test_hidden_files_and_links_out_of_the_folder_are_passed_over(tmp_path: Path) -> None:
    secret = tmp_path / "secret.md"
    secret.write_text("secret")
    root = tmp_path / "docs"
    (root / ".git").mkdir(parents=True)
    (root / "sub").mkdir()
    for name in ("b.md", "sub/a.HTML", ".hidden.md", ".git/x.md", "image.png", "c.txt"):
        (root / name).write_text("x")
    (root / "out.md").symlink_to(secret)
    (root / "in.md").symlink_to(root / "b.md")
    assert [name for name, _ in find_files(root)] == ["b.md", "c.txt", "in.md", "sub/a.HTML"]
    assert ".pdf" in SUFFIXES
