"""How many examples: `ci`, the default, draws the same few every time; `--hypothesis-profile soak` draws hundreds of others.

    python -m pytest tests/properties -n 0 --hypothesis-profile soak

`PROPERTIES=FILE` beside it has it write how many examples of every property were right and wrong.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis.configuration import set_hypothesis_home_dir

from tests.properties.counting import COUNTS

UNCHECKED = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)
settings.register_profile(
    "ci", derandomize=True, max_examples=4, deadline=None, database=None, suppress_health_check=UNCHECKED
)
settings.register_profile(
    "soak",
    max_examples=int(os.environ.get("EXAMPLES", "500")),
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=UNCHECKED,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
settings.load_profile("ci")

# What hypothesis knows of this code and of Unicode it writes down; not into the tree.
HOME = tempfile.mkdtemp(prefix="hypothesis-")
set_hypothesis_home_dir(HOME)
atexit.register(shutil.rmtree, HOME, ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Networks this small are slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_sessionfinish() -> None:
    if path := os.environ.get("PROPERTIES"):
        Path(path).write_text(json.dumps({name: count.as_dict() for name, count in sorted(COUNTS.items())}, indent=1) + "\n")
