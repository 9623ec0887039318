from itertools import pairwise
from pathlib import Path

import pytest

from agent_app.knowledge.document import Document, Section
from agent_app.knowledge.markdown import read_markdown
from agent_app.knowledge.passages import Passage, cut

DEMO = Path(__file__).parents[3] / "ops/lab/demo_model/knowledge"


def passages(text: str, characters: int = 400, overlap: int = 0) -> list[Passage]:
    return list(cut(read_markdown(text, fallback="x"), characters=characters, overlap=overlap))


def test_a_short_document_is_one_passage_under_its_heading() -> None:
    document = read_markdown("# Ports #\n\nThe proxy\nlistens.\n\nOn 8000.\n", fallback="x")
    assert document.title == "Ports"
    assert list(cut(document, characters=400, overlap=0)) == [
        Passage("", "The proxy listens. On 8000.")
    ]


def test_each_passage_has_the_path_of_its_headings_and_none_reaches_over_one() -> None:
    text = "# A\n\nTop.\n\n## Why\n\nBecause.\n\n### Deep\n\nDown.\n\n## How\n\nSo.\n"
    assert passages(text) == [
        Passage("", "Top."),
        Passage("Why", "Because."),
        Passage("Why › Deep", "Down."),  # noqa: RUF001
        Passage("How", "So."),
    ]


@pytest.mark.parametrize("overlap", [0, 100])
def test_no_passage_is_longer_than_allowed_and_nothing_is_lost(overlap: int) -> None:
    words = [f"word{n}{'.' if n % 9 == 0 else ''}" for n in range(400)]
    long = "# T\n\n" + " ".join(words) + " " + "x" * 1000
    found = [passage.text for passage in passages(long, overlap=overlap)]
    assert max(map(len, found)) <= 400
    assert [word for word in words if not any(word in text.split() for text in found)] == []
    assert sum(text.count("x" * 100) for text in found) >= 9


def test_a_passage_begins_with_the_last_sentences_of_the_one_before() -> None:
    sentences = [f"This is the sentence number {n}." for n in range(12)]
    found = [p.text for p in passages("# T\n\n" + " ".join(sentences), 120, 60)]
    assert len(found) > 3
    for before, after in pairwise(found):
        first = after.split(". ")[0]
        assert first.rstrip(".") in before
        assert after != before


def test_an_empty_document_has_no_passage() -> None:
    assert passages("") == []
    assert list(cut(Document("T", (Section((), " \n "),)), characters=400, overlap=0)) == []


@pytest.mark.parametrize("path", sorted(DEMO.glob("*.md")), ids=lambda path: path.stem)
def test_the_demo_documents_are_cut_as_their_model_learned_them(path: Path) -> None:
    heading, _, text = path.read_text().partition("\n")
    document = read_markdown(path.read_text(), fallback="x")
    assert document.title == heading.removeprefix("#").strip()
    first = next(iter(cut(document, characters=400, overlap=0)))
    assert " ".join(text.split()).startswith(first.text)
