"""The real archive, prepared once; tests that ask for it are skipped where it is not at hand."""

import pytest

from benchmark.data.prepare import PrepareResult, prepare
from tests.conftest import shared_file


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> PrepareResult:
    """UTKFace, 23,708 files of 200 px, prepared at 100 px."""
    archive = shared_file("data", "UTKFace.tar.gz")
    return prepare(archive, tmp_path_factory.mktemp("real"))
