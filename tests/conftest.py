"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is slow, not wrong; derandomised so that a run of the suite can be repeated exactly.
settings.register_profile("phenohit", deadline=None, derandomize=True)
settings.load_profile("phenohit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the groups that one worker does alone: at the end the other would wait for it."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the real data sets; set PHENOHIT_DATA to it."""
    given = os.environ.get("PHENOHIT_DATA")
    folder = Path(given) if given else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real data not found: set PHENOHIT_DATA to the folder that holds it")
    return folder
