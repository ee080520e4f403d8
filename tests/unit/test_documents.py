"""The documents in the repository are the models of this version."""

import pytest

from ops.documents import FOLDER, render

DOCUMENTS = render()


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_a_document_has_not_drifted(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == DOCUMENTS[name], "run: python -m ops.documents"


def test_there_is_no_document_of_something_gone() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(DOCUMENTS)
