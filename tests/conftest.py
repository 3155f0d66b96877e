"""What every test needs: no model hub, no display, no more threads than there is room for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Set before any test imports torch, transformers or matplotlib; commands started by tests inherit it.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"
if "PYTEST_XDIST_WORKER" in os.environ:  # one worker per core: more threads would only wait for each other
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):
        os.environ.setdefault(name, "1")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of the benchmark data sets: GENREC_DATA, else `../shared/data` beside the repository."""
    folder = Path(os.environ.get("GENREC_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the benchmark data is not here: {folder} (name its folder with GENREC_DATA)")
    return folder
