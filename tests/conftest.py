"""Shared fixtures, and what a test may count on."""

import os
from contextlib import suppress
from pathlib import Path

import pytest
import torch

with suppress(ImportError):  # not every machine with a GPU has what the command line needs
    import sam2long.cli.commands  # noqa: F401  before a test replaces what one command takes from another

SHARED = Path(__file__).parents[2] / "shared" / "data"  # real videos and golden cases, where a checkout has them


def pytest_configure(config):
    torch.set_num_threads(1)  # the models are tiny: threads would only wait for each other


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        if os.environ.get("REQUIRE_GPU") == "1":
            pytest.fail("REQUIRE_GPU=1 but torch sees no CUDA device")
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip("no ../shared/data beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def tiny_on_sam2():
    """A lively random model with the paper's settings; tests take other settings with `reconfigured`."""
    from tests.fakes import tiny_predictor

    return tiny_predictor()


@pytest.fixture(scope="session")
def tiny(tiny_on_sam2):
    """The same; modules whose tests run over every network put their own in its place."""
    return tiny_on_sam2
