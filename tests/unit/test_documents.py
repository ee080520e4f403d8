"""The documents in the repository are the models of this version."""

import pytest

from ops.documents import FOLDER, README, readme, render

DOCUMENTS = render()


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_a_document_has_not_drifted(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == DOCUMENTS[name], "run: python -m ops.documents"


def test_there_is_no_document_of_something_gone() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(DOCUMENTS)


def test_the_readmes_table_of_settings_has_not_drifted() -> None:
    text = README.read_text(encoding="utf-8")

    assert "| `ISH_AMQP_URL` |" in text
    assert readme(text) == text, "run: python -m ops.documents"
