"""The shape of the code base, checked on its syntax trees: what may import what, how long things may be, what
is never called. `make check` runs this file as the layering check."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Low to high: a module imports from its own part and from parts below it, never from above. Parts on one line
# are siblings and know nothing of each other: training and decoding meet only in the run directory.
# "genrec" is the package's own __init__, which offers the public names.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("progress", "schedule", "precision", "memory", "model_hub"),
    ("journal",),
    ("files",),
    ("run",),
    ("config_problems",),
    ("config",),
    ("data",),
    ("encoders",),
    ("tokenizers",),
    ("trie", "vocabulary", "adapter", "quantization"),
    ("trie_filters",),
    ("evidence", "attribute_filters"),
    ("prompting",),
    ("examples",),
    ("tasks",),
    ("training", "decoding"),
    ("metrics", "text_metrics", "baselines"),
    ("report_plots",),
    ("report",),
    ("transfer_report",),
    ("cold_evaluation",),
    ("evidence_source",),
    ("baselines_of_run", "rank_request"),
    ("live_catalogue", "views"),
    ("branches",),
    ("explanation", "explanation_judge"),
    ("recommender",),
    ("weighing",),
    ("evaluation", "tuning", "task_evaluation", "batch", "inspection", "catalogue_changes"),
    ("explanation_batch",),
    ("explanation_ray",),
    ("preparation",),
    ("pipeline",),
    ("quickstart", "transfer", "reinforcement"),
    ("chat",),
    ("server",),
    ("genrec",),
    ("console",),
    ("cli",),
    ("__main__",),
)
# Parts that may use less than what lies below them.
ONLY_PARTS = {
    "metrics": set[str](),
    "baselines": {"errors", "progress", "schedule", "precision", "memory", "run", "config", "data", "encoders"},
}
# Parts that may use no other third-party package than these.
ONLY_PACKAGES = {
    "errors": set[str](),
    "progress": set[str](),
    "journal": set[str](),
    "files": set[str](),
    "schedule": set[str](),
    "run": set[str](),
    "metrics": {"numpy"},
    "trie": {"numpy"},
    "trie_filters": {"numpy"},
    "evidence": {"numpy"},
}
HEAVY = ("torch", "transformers", "sentence_transformers", "vllm", "ray", "fastapi", "polars", "matplotlib")

MAX_FILE_LINES = 400
MAX_RECIPE_LINES = 150
MAX_FUNCTION_LINES = 80
MAX_ARGUMENTS = 8

PICKLING = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "torch.load",
    "torch.save",
    "yaml.load",
    "yaml.load_all",
    "yaml.full_load",
    "yaml.unsafe_load",
}
# Written so that the pattern does not find itself.
MACHINE_PATH = re.compile(
    r"(?:^|[^A-Za-z0-9_.])/(?:work|home|root|opt|mnt|Users)/[A-Za-z.]|index-url[ =]+http|resolved\": \"http",
    re.MULTILINE,
)
TEXT_SUFFIXES = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".sh", ".json", ".jinja", ".j2", ".cfg", ".ini"}
TEXT_FOLDERS = ("genrec", "train", "eval", "tests", "docs", "prompts", "requirements", "scripts", "examples")
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One Python file. `part` is what LAYERS speaks of: the first name below `genrec`."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def part(self) -> str:
        below = self.path.relative_to(ROOT / "genrec").with_suffix("").parts
        return "genrec" if below == ("__init__",) else below[0]


@cache
def sources(*folders: str) -> list[Source]:
    files = sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))
    texts = [file.read_text(encoding="utf-8") for file in files]
    return [Source(file, text, ast.parse(text)) for file, text in zip(files, texts, strict=True)]


def library() -> list[Source]:
    found = sources("genrec")
    # An empty or misplaced checkout must not pass as a clean one.
    assert len(found) >= 15, f"only {len(found)} modules under {ROOT / 'genrec'}"
    return found


@cache
def known_modules() -> set[str]:
    paths = (source.path.relative_to(ROOT).with_suffix("").parts for source in library())
    return {".".join(path[:-1] if path[-1] == "__init__" else path) for path in paths}


def imported_modules(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and absolute name of every import, those inside functions and TYPE_CHECKING included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import on line {node.lineno}: spell it out"
            module = node.module or ""
            for alias in node.names:
                full = f"{module}.{alias.name}"
                yield node.lineno, full if full in known_modules() else module


def part_of(module: str) -> str:
    """`genrec.data.catalog` -> `data`; `genrec` itself -> `genrec`."""
    names = module.split(".")
    return names[1] if len(names) > 1 else "genrec"


def functions(tree: ast.AST) -> Iterator[FunctionNode]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def dotted(node: ast.expr) -> str:
    """`torch.load` for the attribute of that name, empty for anything that is no chain of names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


def report(problems: list[str]) -> None:
    assert not problems, "\n" + "\n".join(problems)


def upward_imports(source: Source, height: dict[str, int]) -> Iterator[str]:
    for line, module in imported_modules(source.tree):
        target = part_of(module)
        if module.split(".")[0] != "genrec" or target == source.part:
            continue
        where = f"{source.name}:{line}: {source.part} imports {target}"
        if target not in height:
            yield f"{where}, which LAYERS does not know"
        elif height[target] > height[source.part]:
            yield f"{where}, which lies above it"
        elif height[target] == height[source.part]:
            yield f"{where}, its sibling"
        elif target not in ONLY_PARTS.get(source.part, {target}):
            yield f"{where}; it may use {sorted(ONLY_PARTS[source.part]) or 'no other part'} only"


def test_every_module_has_a_place_in_the_layers():
    parts = {part for layer in LAYERS for part in layer}
    report([f"{source.name}: add {source.part!r} to LAYERS" for source in library() if source.part not in parts])


def test_imports_point_down():
    height = {part: index for index, layer in enumerate(LAYERS) for part in layer}
    checked = [source for source in library() if source.part in height]
    report([problem for source in checked for problem in upward_imports(source, height)])


def test_an_upward_a_sibling_and_an_unknown_import_are_each_found():
    height = {part: index for index, layer in enumerate(LAYERS) for part in layer}
    text = "import genrec.cli\nfrom genrec.decoding import beam\nfrom genrec.utils import x\nimport genrec.run\n"
    source = Source(ROOT / "genrec/training/loop.py", text, ast.parse(text))
    problems = list(upward_imports(source, height))
    assert [problem.split(", ")[-1] for problem in problems] == [
        "which lies above it",
        "its sibling",
        "which LAYERS does not know",
    ]


def test_some_parts_use_only_a_few_packages():
    problems = []
    for source in library():
        if source.part not in ONLY_PACKAGES:
            continue
        allowed = ONLY_PACKAGES[source.part] | sys.stdlib_module_names | {"genrec"}
        used = {module.split(".")[0] for _, module in imported_modules(source.tree)}
        problems += [f"{source.name}: imports {name}" for name in sorted(used - allowed)]
    report(problems)


def test_the_library_imports_no_recipe_and_no_test():
    problems = [
        f"{source.name}:{line}: imports {module}"
        for source in library()
        for line, module in imported_modules(source.tree)
        if module.split(".")[0] in {"train", "eval", "tests", "examples"}
    ]
    report(problems)


def test_importing_genrec_loads_no_heavy_package():
    code = f"import sys, genrec; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_the_help_of_the_command_line_loads_no_model_library():
    heavy = [name for name in HEAVY if name not in {"polars", "matplotlib"}]
    code = (
        "import atexit, runpy, sys; sys.argv = ['genrec', '--help'];"
        f"atexit.register(lambda: print('loaded:', [name for name in {heavy!r} if name in sys.modules]));"
        "runpy.run_module('genrec', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "quickstart" in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_files_and_functions_stay_small():
    checked = sources("genrec", "train", "eval", "tests")
    assert len(checked) >= 25
    problems = []
    for source in checked:
        lines = source.text.count("\n")
        recipe = source.path.parent == ROOT / "train"
        limit = MAX_RECIPE_LINES if recipe else MAX_FILE_LINES
        if lines > limit:
            problems.append(f"{source.name}: {lines} lines, at most {limit}")
        for node in functions(source.tree):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                problems.append(f"{source.name}:{node.lineno}: {node.name} has {length} lines")
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = sum(argument.arg not in {"self", "cls"} for argument in given)
            # A command's arguments are its options, given by name on the command line.
            if count > MAX_ARGUMENTS and source.part != "cli":
                problems.append(f"{source.name}:{node.lineno}: {node.name} has {count} arguments")
    report(problems)


def test_only_the_command_line_prints():
    problems = [
        f"{source.name}:{node.lineno}: print"
        for source in library()
        if source.part not in {"cli", "console"}
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and dotted(node.func) == "print"
    ]
    report(problems)


def test_nothing_is_unpickled_or_evaluated():
    problems = []
    for source in library():
        for line, module in imported_modules(source.tree):
            if module.split(".")[0] in PICKLING:
                problems.append(f"{source.name}:{line}: imports {module}")
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Call):
                continue
            if dotted(node.func) in FORBIDDEN_CALLS:
                problems.append(f"{source.name}:{node.lineno}: calls {dotted(node.func)}")
            for keyword in node.keywords:
                safe = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg == "allow_pickle" and not safe:
                    problems.append(f"{source.name}:{node.lineno}: allow_pickle is not False")
    report(problems)


def undocumented(source: Source) -> Iterator[str]:
    if not ast.get_docstring(source.tree):
        yield f"{source.name}: the module"

    def walk(nodes: list[ast.stmt], prefix: str) -> Iterator[str]:
        for node in nodes:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if node.name.startswith("_") or "overload" in map(dotted, node.decorator_list):
                continue
            if not ast.get_docstring(node):
                yield f"{source.name}:{node.lineno}: {prefix}{node.name}"
            if isinstance(node, ast.ClassDef):
                yield from walk(node.body, f"{node.name}.")

    yield from walk(source.tree.body, "")


def test_everything_public_has_a_docstring():
    report([f"{problem} has no docstring" for source in library() for problem in undocumented(source)])


def test_every_test_file_holds_tests():
    checked = [source for source in sources("tests") if source.path.name.startswith("test_")]
    assert len(checked) >= 5
    empty = [
        source.name for source in checked if not any(node.name.startswith("test_") for node in functions(source.tree))
    ]
    report([f"{name} holds no test" for name in empty])


def test_no_path_of_one_machine_and_no_registry_address_is_in_the_sources():
    folders = [file for folder in TEXT_FOLDERS for file in (ROOT / folder).rglob("*")]
    tops = [file for file in (*ROOT.iterdir(), *(ROOT / ".ci").iterdir()) if file.name != "LICENSE"]
    files = [
        file
        for file in (*folders, *tops)
        if file.is_file() and (file.suffix in TEXT_SUFFIXES or file.name in {"Makefile", "run", ".gitignore"})
    ]
    assert len(files) >= 30
    problems = []
    for file in files:
        text = file.read_text(encoding="utf-8")
        for match in MACHINE_PATH.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            problems.append(f"{file.relative_to(ROOT)}:{line}: {match.group().strip()}")
    report(problems)


@pytest.mark.parametrize("found", ["see /" + "work/main", "'/" + "home/someone'", "--index-url " + "http://x"])
def test_the_pattern_of_machine_paths_finds_them(found: str):
    assert MACHINE_PATH.search(found)
    assert not MACHINE_PATH.search("../shared/data, examples/work/x and https://example.org/opt/x")
