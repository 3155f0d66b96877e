"""What every test needs: no model hub, no display, no more threads than there is room for."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

# Set before any test imports torch, transformers or matplotlib; commands started by tests inherit it.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"
if "PYTEST_XDIST_WORKER" in os.environ:  # one worker per core: more threads would only wait for each other
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):
        os.environ.setdefault(name, "1")

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--keep-screenshots", action="store_true", help="tests/browser writes into docs/images")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of the benchmark data sets: GENREC_DATA, else `../shared/data` beside the repository."""
    folder = Path(os.environ.get("GENREC_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the benchmark data is not here: {folder} (name its folder with GENREC_DATA)")
    return folder


TINY_CONFIGS = {
    "ingest": "min_interactions: 1\n",
    "embed": "text_model: null\nbehaviour_model: null\nprecomputed: {{text: {folder}/vectors.npy}}\n",
    "tokenize": "method: residual-kmeans\nlevels: 2\ncodebook_size: 8\nitem_codes: 0\n",
    "train": (
        "scratch: {{hidden_size: 32, layers: 1, heads: 2, intermediate_size: 64, text_vocabulary: 320}}\n"
        "epochs: 2\nbatch_tokens: 512\nmax_history_items: 6\nvalidation_users: 10\nvalidate_every: 1\n"
        "precision: float32\n"
    ),
    "evaluate": "baselines: [popularity]\ncutoffs: [5, 10]\nbeam_width: 30\n",
}


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 30 items of 3 genres, 40 users who walk through one genre each, vectors, and one
    configuration per stage (`train.yaml`, …) that makes a run of them in seconds."""
    import numpy as np  # not above: it reads the environment when it is loaded

    folder = tmp_path_factory.mktemp("tiny")
    genres = ["Comedy", "Drama", "Western"]
    items = [
        {"item_id": f"i{n}", "title": f"Film {n}", "year": 1990 + n % 5, "genres": [genres[n % 3], f"Mood {n % 2}"]}
        for n in range(30)
    ]
    walks = [(user, step, 3 * ((user + step) % 10) + user % 3) for user in range(40) for step in range(4 + user % 4)]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    rows = "".join(f"u{user},i{item},{1000 * user + step}\n" for user, step, item in walks)
    (folder / "interactions.csv").write_text("user_id,item_id,timestamp\n" + rows)
    rng = np.random.default_rng(0)
    vectors = np.eye(8)[np.arange(30) % 3] + 0.3 * rng.normal(size=(30, 8))
    np.save(folder / "vectors.npy", vectors.astype(np.float32))
    for stage, text in TINY_CONFIGS.items():
        (folder / f"{stage}.yaml").write_text(text.format(folder=folder))
    return folder


@pytest.fixture(scope="session")
def tiny_run(tiny_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run of `tiny_files`, made once by the real stages. For reading only: see `tiny_copy`."""
    from genrec import config, pipeline
    from genrec.data.ingest import ingest
    from genrec.encoders.embed import embed
    from genrec.run import Run

    run = Run.create(tmp_path_factory.mktemp("runs") / "tiny")
    tables = [tiny_files / "items.jsonl", tiny_files / "interactions.csv"]
    ingest(run, "tables", tables, config.load_config(config.IngestConfig, tiny_files / "ingest.yaml"))
    embed(run, config.load_config(config.EmbedConfig, tiny_files / "embed.yaml"))
    pipeline.tokenize(run, config.load_config(config.TokenizeConfig, tiny_files / "tokenize.yaml"))
    pipeline.train(run, config.load_config(config.TrainConfig, tiny_files / "train.yaml"))
    return run.path


@pytest.fixture
def tiny_copy(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of `tiny_run` that a test may change or break."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


class Finished(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str


@pytest.fixture
def genrec(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """`genrec("inspect", run)`: the command line in this process, which has loaded the heavy packages once."""
    from genrec.cli import main

    def call(*arguments: object) -> Finished:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["genrec", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as ending:
            status = int(ending.code or 0)
        return Finished(status, *capsys.readouterr())

    return call


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """`write({...}, …, name="rows")`: a file of JSON lines."""

    def write(*rows: dict[str, Any], name: str = "rows") -> Path:
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file

    return write
