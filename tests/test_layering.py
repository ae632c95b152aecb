"""Who may import whom. The folders are dependency rules; this test keeps them."""

from __future__ import annotations

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "parakeet_stt"
NAME = PACKAGE.name
CORE = frozenset({"core", "text", "offline", "streaming"})
# What the files of each room may import, besides their own room and other people's packages.
MAY_IMPORT = {
    "core": CORE,
    "text": {"core"},
    "offline": {"core", "text"},
    "streaming": {"core", "text"},
    "engines": {"core", "text"},
    "ipc": {"core"},
    "device": {"core", "text", "ipc"},
    "media": {"core", "ipc"},
    "server": {*CORE, "device", "ipc", "media"},
    "processes": {*CORE, "device", "engines", "ipc", "media", "server"},  # programs compose the parts
    "measure": {"core", "text"},
    "bulk": {*CORE, "device", "engines", "ipc", "measure", "media", "processes", "server"},
    "cli": {
        *CORE,
        "bulk",
        "device",
        "engines",
        "ipc",
        "measure",
        "media",
        "server",
        "processes",
    },  # but when a command runs, not before
}
COMMANDS = f"{NAME}.cli.app"
# All of a device that the server may know.
LINK = {f"{NAME}.device.{name}" for name in ("client", "ledger", "link", "reports")}
HEAVY = {"torch", "torchaudio", "nemo", "silero_vad", "onnx", "onnxruntime", "omegaconf"}
LIGHT = {*sys.stdlib_module_names, NAME, "typer"}  # what is imported for `parakeet --help`
WEB = {"fastapi", "starlette", "bentoml", "uvicorn", "pydantic", "pydantic_settings", "prometheus_client"}
IO = {"os", "socket", "subprocess", "threading", "asyncio", "av", "soundfile", "time", "io", "tempfile"}
MAX_LINES, MAX_FILES, MAX_PARAMETERS = 400, 12, 6

MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = [*MODULES, ROOT / "service.py", *sorted((ROOT / "scripts").rglob("*.py"))]
FOLDERS = sorted({path.parent for path in [*SOURCES, *(ROOT / "tests").rglob("*.py")]} - {ROOT})


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    if parts == ("__main__.py",):
        return "cli"
    return parts[0] if len(parts) > 1 else "core"


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, *, at_import: bool = False) -> set[str]:
    """All modules that a file names in an import. at_import: only those that importing the file imports."""
    tree = ast.parse(path.read_text())
    nodes = ast.iter_child_nodes(tree) if at_import else ast.walk(tree)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


OURS = {module_of(path): path for path in MODULES}


def ours_of(path: Path, *, at_import: bool = False) -> set[str]:
    """The modules of the package among them; a package itself only where nothing in it is named."""
    found = imports_of(path, at_import=at_import) & OURS.keys()
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)}


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports_of(path)}


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=short)
def test_no_arrow_runs_up(path: Path) -> None:
    room = room_of(path)
    for name in ours_of(path):
        other = room_of(OURS[name])
        assert other == room or other in MAY_IMPORT[room], f"{room} imports {name}"
        if room == "server" and other == "device":
            assert name in LINK


def test_there_is_no_circle() -> None:
    TopologicalSorter({name: ours_of(path) - {name} for name, path in OURS.items()}).prepare()


def test_nothing_imports_the_service() -> None:
    assert not [path for path in MODULES if "service" in roots(path)]


@pytest.mark.parametrize("path", [path for path in MODULES if room_of(path) != "engines"], ids=short)
def test_only_the_engines_import_torch_and_nemo(path: Path) -> None:
    assert not roots(path) & HEAVY


@pytest.mark.parametrize("path", [path for path in MODULES if room_of(path) in CORE], ids=short)
def test_the_core_is_pure(path: Path) -> None:
    assert not roots(path) & (WEB | IO)


@pytest.mark.parametrize("path", [path for path in MODULES if room_of(path) not in ("server", "engines")], ids=short)
def test_only_the_server_knows_the_web(path: Path) -> None:
    may = {"bentoml"} if room_of(path) == "cli" else set()  # whose store `parakeet fetch` fills
    assert not roots(path) & (WEB - may)


def test_a_command_imports_its_libraries_when_it_runs() -> None:
    """`parakeet --help` imports app.py, and so the files that it imports, which have to be soon imported."""
    found, waiting = set[str](), [COMMANDS]
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting += ours_of(OURS[name], at_import=True) - found
    for name in found:
        assert {one.split(".")[0] for one in imports_of(OURS[name], at_import=True)} <= LIGHT, name
        assert room_of(OURS[name]) in ("cli", *CORE), name


@pytest.mark.parametrize("path", [path for path in MODULES if room_of(path) == "server"], ids=short)
def test_the_server_does_not_know_bentoml(path: Path) -> None:
    assert "bentoml" not in roots(path)


@pytest.mark.parametrize("path", [path for path in MODULES if path.name != "settings.py"], ids=short)
def test_only_the_settings_read_the_environment(path: Path) -> None:
    source = path.read_text()
    assert "os.getenv" not in source
    assert "os.environ.get" not in source


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_every_file_says_what_it_is_for_and_is_short(path: Path) -> None:
    source = path.read_text()
    said = ast.get_docstring(ast.parse(source))
    assert said
    assert not said.startswith("Knows ")
    assert len(source.splitlines()) <= MAX_LINES


@pytest.mark.parametrize("folder", FOLDERS, ids=short)
def test_no_folder_holds_too_many_files(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) <= MAX_FILES


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = function.args
    names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_a_function_of_many_parameters_has_its_reason_beside_it(path: Path) -> None:
    lines = path.read_text().splitlines()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and parameters(node) > MAX_PARAMETERS:
            signature = "\n".join(lines[node.lineno - 1 : node.body[0].lineno])
            assert "#" in signature, f"{node.name} has {parameters(node)} parameters"
