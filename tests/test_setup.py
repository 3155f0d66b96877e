"""The files that set-up reads agree with each other, and the script says what is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def pins() -> list[Requirement]:
    lines = [
        line
        for name in ("lock.txt", "torch.txt")
        for line in (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    return [Requirement(line) for line in lines]


def test_the_lock_holds_exact_pins_and_no_address():
    locked = pins()
    assert len(locked) > 50
    assert all(re.fullmatch(r"==[0-9][0-9a-z.]*", str(pin.specifier)) for pin in locked)
    assert all(pin.url is None for pin in locked)


def test_every_direct_dependency_is_pinned_to_a_release_that_it_allows():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    # vLLM has its own set-up; an extra may name other extras of ours.
    lines = [line for name, extra in extras.items() if name != "vllm" for line in extra]
    wanted = [Requirement(line) for line in (*project["dependencies"], *lines) if not line.startswith(project["name"])]
    assert len(wanted) > 15
    versions: dict[str, list[str]] = {}
    for pin in pins():
        versions.setdefault(canonicalize_name(pin.name), []).append(str(pin.specifier).removeprefix("=="))
    for requirement in wanted:
        found = versions.get(canonicalize_name(requirement.name), [])
        assert found, f"{requirement.name} is not in the lock: run `make lock`"
        assert all(version in requirement.specifier for version in found), f"{requirement}: {found}"


def test_the_package_holds_every_folder_of_code():
    named = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = {file.parent.relative_to(ROOT) for file in (ROOT / "genrec").rglob("*.py")}
    assert sorted(named) == sorted(["genrec._prompts", *(".".join(folder.parts) for folder in folders)])


def test_set_up_without_a_python_says_what_is_missing(tmp_path: Path):
    for name in ("scripts", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "cat", "cksum", "dirname"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHON"} | {"PATH": str(tools)}
    script = tmp_path / "scripts" / "setup.sh"
    done = subprocess.run(
        [str(tools / "bash"), str(script)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "no Python of version 3.11 or newer" in done.stderr
    assert "make setup PYTHON=" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_make_alone_lists_every_target():
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(targets) >= 8
    assert all(f"make {target}" in listed for target in targets)
