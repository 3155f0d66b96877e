"""The run directory: the one thing that stages share.

    RUN/manifest.json   format version; per stage: config, seed, checksums, versions, seconds, report

A stage writes its files under temporary names, renames them into place and then writes its record into the
manifest, each step atomic. So a run is readable at every moment: a killed stage leaves the files and the
record of before. A run has one writer at a time (`writes`) and any number of readers. Records carry checksums of
inputs and outputs; `require` compares the outputs with the disk and tells the user which stage to run again.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

from genrec.errors import GenrecError, RunError
from genrec.files import atomic_file, restore_folder
from genrec.journal import changing, finish_change, is_changing, sole_writer

FORMAT_VERSION = 1
Digest: TypeAlias = "hashlib._Hash"
ReadT = TypeVar("ReadT")
GivenT = ParamSpec("GivenT")
# Where the verb is not called as the stage.
_VERBS = {"trie": "tokenize", "align": "embed RUN --align", "evidence:dialogues": "evidence RUN --dialogues"}
_PACKAGES = ("genrec-toolkit", "torch", "transformers", "sentence-transformers", "accelerate", "numpy")


@dataclass(frozen=True)
class StageReport:
    """What a stage has to say: `facts` for programs, `words` for people, and the command that comes next."""

    stage: str
    facts: dict[str, Any]
    words: list[str]
    next_command: str = ""


@dataclass(frozen=True)
class StageRecord:
    """A stage as the manifest keeps it. `inputs` and `outputs` map run-relative paths to SHA-256 sums."""

    config: dict[str, Any]
    seed: int
    inputs: dict[str, str]
    outputs: dict[str, str]
    packages: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Started:
    """A stage that is under way: since when, and what the files of the run were when it began, file → SHA-256."""

    at: float
    files: Mapping[str, str]

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return time.monotonic() - self.at


@dataclass(frozen=True)
class Run:
    """A run directory on disk. Holds no state of its own: every question reads the manifest."""

    path: Path

    @classmethod
    def create(cls, path: Path | str) -> Run:
        """Make `path` a run (or open it if it is one). Raises RunError if it holds anything else."""
        folder = Path(path)
        if (folder / "manifest.json").exists():
            return cls.open(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunError(f"{folder} exists and is not a run.", "Name an empty or new folder with --out.")
        _write_manifest(folder, {"format_version": FORMAT_VERSION, "stages": {}})
        return cls(folder)

    @classmethod
    def open(cls, path: Path | str) -> Run:
        """Open an existing run, and finish a change of it that was killed when it had been decided.

        Raises RunError if there is none or its format is another.
        """
        folder = Path(path)
        finish_change(folder)
        for old in [*folder.glob(".*.before"), *folder.glob("*/.*.before")]:
            restore_folder(old.with_name(old.name.removeprefix(".").removesuffix(".before")))
        manifest = folder / "manifest.json"
        if not manifest.is_file():
            raise RunError(
                f"{folder} is not a run: it has no manifest.json.",
                "Make one with `genrec ingest … --out RUN` or `genrec quickstart`.",
            )
        version = _read_manifest(manifest).get("format_version")
        if version != FORMAT_VERSION:
            raise RunError(
                f"{manifest} has format version {version!r}; this genrec reads version {FORMAT_VERSION}.",
                "Use the genrec version that made the run, or make the run again.",
            )
        return cls(folder)

    @property
    def stages(self) -> dict[str, StageRecord]:
        """The finished stages by name, in the order in which they were recorded."""
        stages = _read_manifest(self.path / "manifest.json")["stages"]
        return {name: StageRecord(**record) for name, record in stages.items()}

    @property
    def amendments(self) -> list[dict[str, Any]]:
        """What has changed the catalogue since it was ingested, oldest first (see `amend`)."""
        return list(_read_manifest(self.path / "manifest.json").get("amendments", []))

    @property
    def stamp(self) -> tuple[int, ...]:
        """Changes whenever the manifest does; costs one look at the file system."""
        try:
            status = (self.path / "manifest.json").stat()
        except OSError as error:
            raise RunError(f"{self.path} has lost its manifest.json: {error.strerror}.") from error
        return status.st_ino, status.st_mtime_ns, status.st_size

    def read_unchanged(self, read: Callable[[], ReadT]) -> ReadT:
        """What `read` gives while nothing changes the run: it is called again where something did meanwhile."""
        while True:
            finish_change(self.path)
            before = self.stamp
            try:
                found = read()
            except GenrecError:
                if self.stamp == before and not is_changing(self.path):
                    raise
                continue
            if self.stamp == before and not is_changing(self.path):
                return found

    def require(self, stage: str, *, verify: bool = True) -> StageRecord:
        """The record of a finished stage. Raises RunError where it is missing or its files have changed."""
        record = self.stages.get(stage)
        verb = _VERBS.get(stage, stage.split(":")[0])
        if record is None:
            raise RunError(f"{self.path} has no stage {stage!r} yet.", f"Run `genrec {verb} …` first.")
        for relative, expected in record.outputs.items() if verify else ():
            file = self.path / relative
            if not file.is_file():
                raise RunError(f"{file} is missing.", f"Run `genrec {verb} …` again.")
            if file_checksum(file) != expected:
                raise RunError(
                    f"{file} is not what stage {stage!r} wrote (its checksum differs).",
                    f"Run `genrec {verb} …` again.",
                )
        return record

    def begin(self) -> Started:
        """What a stage calls before it reads anything; `record` wants the answer."""
        return Started(time.monotonic(), _files_of(_read_manifest(self.path / "manifest.json")["stages"]))

    def record(
        self,
        report: StageReport,
        *,
        config: Mapping[str, Any],
        seed: int,
        inputs: Sequence[Path],
        outputs: Sequence[Path],
        started: Started,
    ) -> None:
        """Enter a finished stage into the manifest; the stages that read its outputs become stale.

        A later stage is dropped from the manifest when it read a file of this stage that has now changed. Its files
        stay until it is run again. Raises RunError where somebody has changed meanwhile what this stage read.
        """
        written = {self._relative(path): file_checksum(path) for path in outputs}
        read = {self._relative(path) if self.contains(path) else str(path): file_checksum(path) for path in inputs}
        entry = StageRecord(
            config=dict(config),
            seed=seed,
            inputs=read,
            outputs=written,
            packages=_package_versions(),
            seconds=round(started.seconds, 3),
            report=report.facts,
        )
        with changing(self.path):
            self._enter(report, entry, started)

    def _enter(self, report: StageReport, entry: StageRecord, started: Started) -> None:
        manifest = _read_manifest(self.path / "manifest.json")
        if report.stage == "ingest":  # another catalogue, which nothing has changed yet
            manifest.pop("amendments", None)
        stages = manifest["stages"]
        stages.pop(report.stage, None)
        now = _files_of(stages)
        for file, checksum in entry.inputs.items():
            if {started.files.get(file, checksum), now.get(file, checksum)} != {checksum}:
                verb = _VERBS.get(report.stage, report.stage.split(":")[0])
                problem = f"{self.path / file} was changed by another process while {verb} read it."
                raise RunError(problem, f"Run `genrec {verb} …` again.")
        stages[report.stage] = asdict(entry)
        _drop_stale(stages)
        _write_manifest(self.path, manifest)

    def amend(
        self, staging: Path, report: StageReport, *, when: str, outputs: Mapping[str, Sequence[str]]
    ) -> list[str]:
        """Write the manifest of a changed catalogue into `staging`, whose files are about to take their places.

        The stages stay valid: records that read or wrote a changed file get its new checksum, and `outputs`
        (stage → run-relative files) replaces what a stage vouches for. Evaluations are dropped: they measured
        another catalogue. Appends an entry of `report` and `when` (ISO 8601). Returns the dropped stages.
        """
        manifest = _read_manifest(self.path / "manifest.json")
        changed = {
            file.relative_to(staging).as_posix(): file_checksum(file) for file in staging.rglob("*") if file.is_file()
        }
        stages = manifest["stages"]
        dropped = [name for name in stages if name.split(":")[0] == "evaluate"]
        for name in dropped:
            del stages[name]
        for name, record in stages.items():
            files = outputs.get(name, list(record["outputs"]))
            record["outputs"] = {file: changed.get(file) or record["outputs"][file] for file in files}
            record["inputs"] = {file: changed.get(file, sum_) for file, sum_ in record["inputs"].items()}
        entry = {"change": report.stage, "when": when, "facts": report.facts, "dropped": dropped}
        manifest["amendments"] = [*manifest.get("amendments", []), entry]
        _write_manifest(staging, manifest)
        return dropped

    def contains(self, path: Path) -> bool:
        """Whether `path` lies inside this run."""
        return path.resolve().is_relative_to(self.path.resolve())

    def _relative(self, path: Path) -> str:
        return path.resolve().relative_to(self.path.resolve()).as_posix()


def writes(
    command: str,
) -> Callable[[Callable[Concatenate[Run, GivenT], ReadT]], Callable[Concatenate[Run, GivenT], ReadT]]:
    """Of a function over a run: it is the run's one writer while it works (see `journal.sole_writer`).

    `command` is what others are told who would write meanwhile; they get a RunError. Readers need not wait.
    """

    def decorate(stage: Callable[Concatenate[Run, GivenT], ReadT]) -> Callable[Concatenate[Run, GivenT], ReadT]:
        @functools.wraps(stage)
        def alone(run: Run, /, *given: GivenT.args, **named: GivenT.kwargs) -> ReadT:
            with sole_writer(run.path, command):
                return stage(run, *given, **named)

        return alone

    return decorate


def _files_of(stages: Mapping[str, Any]) -> dict[str, str]:
    """What stages wrote, file → SHA-256."""
    return {file: checksum for record in stages.values() for file, checksum in record["outputs"].items()}


def _drop_stale(stages: dict[str, Any]) -> None:
    """Remove records that read a changed file of a recorded stage, and those that read files of the removed."""
    current = _files_of(stages)
    while stale := [
        name
        for name, record in stages.items()
        if any(file in current and current[file] != sum_ for file, sum_ in record["inputs"].items())
    ]:
        for name in stale:
            # Nobody vouches for these files any longer: no checksum equals "".
            current |= dict.fromkeys(stages.pop(name)["outputs"], "")


def file_checksum(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def text_checksum(lines: Sequence[str]) -> str:
    """SHA-256 of strings in order; what ties vectors and codes to one order of items."""
    return text_digest(lines).hexdigest()


def text_digest(lines: Sequence[str], before: Digest | None = None) -> Digest:
    """The digest behind `text_checksum`, of these strings after those of `before`, which stays as it is."""
    digest = hashlib.sha256() if before is None else before.copy()
    for line in lines:
        encoded = line.encode()
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, with a fixed layout so that equal values give equal bytes."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file of the run. Raises RunError where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing.", "Run the stage that writes it again.") from error
    except ValueError as error:
        raise RunError(f"{path} is not valid JSON: {error}.", "Run the stage that writes it again.") from error


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = read_json(path)
    if not isinstance(manifest, dict):
        raise RunError(f"{path} is not a manifest.", "Make the run again.")
    return manifest


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    write_json(folder / "manifest.json", manifest)


def _package_versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def check_unfinished(run: Run) -> None:
    """Raise RunError where the last training came to its end: going on would begin anew and replace the model."""
    unfinished = [run.path / "training" / part for part in ("checkpoint", "rows")]
    if "train" in run.stages and not any(part.exists() for part in unfinished):
        raise RunError(
            f"{run.path} has no training to go on with: the last one came to its end.",
            "Leave out --resume to train anew; the model is replaced then.",
        )
