"""Knows how the contents of an image are listed, as CycloneDX JSON. Does not build or run one.

    .venv/bin/python -m scripts.release.sbom ROOT > sbom.json        # ROOT: a folder that holds the image's files

Read from what is installed there: the metadata of Python packages, Debian's list of its own, and the model. The same
files give the same list, byte for byte; it has no time and no number of its own.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parakeet_stt.server import digests

Component = dict[str, Any]
VENV = "app/.venv/lib/python3.*/site-packages"
BENTO = "home/bentoml/bento"


def python_packages(folder: Path) -> Iterator[Component]:
    """Those whose metadata lies in this folder."""
    for package in importlib.metadata.distributions(path=[str(folder)]):
        name = re.sub(r"[-_.]+", "-", package.metadata["Name"]).lower()
        yield component("library", name, package.version, f"pkg:pypi/{name}@{package.version}", licence_of(package))


def licence_of(package: importlib.metadata.Distribution) -> str | None:
    """As its authors wrote it: an SPDX expression, a line of text, or what PyPI's classifiers call it."""
    metadata = package.metadata
    for field in ("License-Expression", "License"):
        written: str = (metadata.get_all(field) or [""])[0].strip()
        if written and "\n" not in written and written.upper() != "UNKNOWN":
            return written
    named = [one.rpartition(" :: ")[2] for one in metadata.get_all("Classifier") or [] if one.startswith("License :: ")]
    return ", ".join(named) or None


def debian_packages(status: str) -> Iterator[Component]:
    """Those that are installed, from the text of dpkg's status file."""
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^([A-Z][\w-]*): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status") == "install ok installed":
            name, version = fields["Package"], fields["Version"]
            url = f"pkg:deb/debian/{name}@{version.replace('+', '%2B')}?arch={fields['Architecture']}"
            yield component("library", name, version, url, None)


def python(settings: str) -> Iterator[Component]:
    """Python itself, which an image may have from elsewhere; from the text of pyvenv.cfg."""
    for version in re.findall(r"^version(?:_info)? = ([\d.]+)", settings, re.MULTILINE):
        yield component("library", "cpython", version, f"pkg:generic/cpython@{version}", "Python-2.0")


def models(bento: Path) -> Iterator[Component]:
    """The weights: those in the source, and those that were baked in."""
    for path in sorted(bento.rglob("*.nemo")):
        made = component("machine-learning-model", path.stem, "", "", None)
        yield {**made, "hashes": [{"alg": "SHA-256", "content": digests.of_file(path)}]}


def component(kind: str, name: str, version: str, url: str, licence: str | None) -> Component:
    """In CycloneDX's words, without what is not known."""
    licences = [{"license": {"name": licence}}] if licence else []
    described = {"type": kind, "name": name, "version": version, "purl": url, "licenses": licences}
    return {key: value for key, value in described.items() if value}


def bill_of_materials(root: Path) -> dict[str, Any]:
    """Of the image with these files."""
    packages = [one for folder in root.glob(VENV) for one in python_packages(folder)]
    packages += debian_packages((root / "var/lib/dpkg/status").read_text("utf-8"))
    packages += python((root / "app/.venv/pyvenv.cfg").read_text("utf-8"))
    components = [*packages, *models(root / BENTO)]
    components.sort(key=lambda one: (one["type"], one.get("purl", ""), one["name"]))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": "parakeet-stt"}},
        "components": components,
    }


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    print(json.dumps(bill_of_materials(parser.parse_args().root), indent=1))


if __name__ == "__main__":
    main()
