"""Who may import whom. The folders are dependency rules; this is where they are kept."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "parakeet_stt"
HEAVY = {"torch", "torchaudio", "nemo", "silero_vad", "onnxruntime"}
WEB = {"fastapi", "starlette", "bentoml", "uvicorn"}
CORE = sorted(
    [
        *PACKAGE.glob("*.py"),
        *(path for one in ("text", "offline", "streaming") for path in (PACKAGE / one).glob("*.py")),
    ]
)
SHELL = sorted(
    path
    for one in ("server", "device", "media")
    for path in (PACKAGE / one).rglob("*.py")
    if path.name != "resampling.py"
)
MODELS = sorted((PACKAGE / "engines").glob("*.py"))


def imported(path: Path) -> set[str]:
    """All modules that a file names in an import, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize("path", [*CORE, *SHELL, ROOT / "service.py"], ids=lambda p: p.name)
def test_only_the_engines_import_torch_and_nemo(path: Path) -> None:
    assert not roots(path) & HEAVY


@pytest.mark.parametrize("path", CORE, ids=lambda p: p.name)
def test_the_core_knows_neither_the_web_nor_the_shell_nor_the_engines(path: Path) -> None:
    assert not roots(path) & (WEB | {"av", "pydantic", "pydantic_settings"})
    assert not any(name.startswith(("parakeet_stt.server", "parakeet_stt.engines")) for name in imported(path))


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.name)
def test_the_engines_do_not_know_the_shell(path: Path) -> None:
    assert not any(name.startswith("parakeet_stt.server") for name in imported(path))
    assert not roots(path) & (WEB - {"bentoml"})


@pytest.mark.parametrize("path", [*CORE, *SHELL, *MODELS], ids=lambda p: p.name)
def test_only_the_settings_read_the_environment(path: Path) -> None:
    source = path.read_text()
    assert path.name == "settings.py" or ("os.getenv" not in source and "os.environ.get" not in source)


@pytest.mark.parametrize("path", [*CORE, *SHELL, *MODELS, ROOT / "service.py"], ids=lambda p: p.name)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))
