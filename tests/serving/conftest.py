"""One server for all tests of serving that change no settings."""

from collections.abc import Iterator

import httpx
import pytest

from tests.served import Site
from tests.served import site as running


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("serving")) as made:
        yield made


@pytest.fixture
def http(site: Site) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.address, timeout=30) as client:
        yield client
