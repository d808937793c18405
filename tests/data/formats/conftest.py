"""The `read` fixture: a reader of files in an empty folder."""

import pytest

from tests.data.reading import Reader


@pytest.fixture
def read(tmp_path):
    """Reads bytes as a file of a given name; see Reader."""
    return Reader(tmp_path)
