"""Lists the contents of an image as a CycloneDX bill of materials, in JSON.

    python -m scripts.make.sbom ROOT > sbom.json        # ROOT: a folder with the image's files

The list is read from the files: the metadata of Python packages, Debian's list of its packages, and the models. The
same files give the same list, byte for byte; it has no time and no serial number.
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


def list_python_packages(folder: Path) -> Iterator[Component]:
    """The packages whose metadata is in this folder."""
    for package in importlib.metadata.distributions(path=[str(folder)]):
        name = re.sub(r"[-_.]+", "-", package.metadata["Name"]).lower()
        url = f"pkg:pypi/{name}@{package.version}"
        yield make_component("library", name, package.version, url, read_licence(package))


def read_licence(package: importlib.metadata.Distribution) -> str | None:
    """The licence as the authors write it: an SPDX expression, a line of text, or PyPI's classifiers."""
    metadata = package.metadata
    for field in ("License-Expression", "License"):
        written: str = (metadata.get_all(field) or [""])[0].strip()
        if written and "\n" not in written and written.upper() != "UNKNOWN":
            return written
    named = [one.rpartition(" :: ")[2] for one in metadata.get_all("Classifier") or [] if one.startswith("License :: ")]
    return ", ".join(named) or None


def list_debian_packages(status: str) -> Iterator[Component]:
    """The installed packages, from the text of dpkg's status file."""
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^([A-Z][\w-]*): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status") == "install ok installed":
            name, version = fields["Package"], fields["Version"]
            url = f"pkg:deb/debian/{name}@{version.replace('+', '%2B')}?arch={fields['Architecture']}"
            yield make_component("library", name, version, url, None)


def list_python(settings: str) -> Iterator[Component]:
    """Python itself, which need not be a Debian package; from the text of pyvenv.cfg."""
    for version in re.findall(r"^version(?:_info)? = ([\d.]+)", settings, re.MULTILINE):
        yield make_component("library", "cpython", version, f"pkg:generic/cpython@{version}", "Python-2.0")


def list_models(bento: Path) -> Iterator[Component]:
    """The weights: those of the source, and those from the BentoML store."""
    for path in sorted(bento.rglob("*.nemo")):
        component = make_component("machine-learning-model", path.stem, "", "", None)
        yield {**component, "hashes": [{"alg": "SHA-256", "content": digests.of_file(path)}]}


def make_component(kind: str, name: str, version: str, url: str, licence: str | None) -> Component:
    """A component with CycloneDX's keys; keys without a value are left out."""
    licences = [{"license": {"name": licence}}] if licence else []
    described = {"type": kind, "name": name, "version": version, "purl": url, "licenses": licences}
    return {key: value for key, value in described.items() if value}


def make_bill_of_materials(root: Path) -> dict[str, Any]:
    """The bill of materials of the image with these files."""
    packages = [one for folder in root.glob(VENV) for one in list_python_packages(folder)]
    packages += list_debian_packages((root / "var/lib/dpkg/status").read_text("utf-8"))
    packages += list_python((root / "app/.venv/pyvenv.cfg").read_text("utf-8"))
    components = [*packages, *list_models(root / BENTO)]
    components.sort(key=lambda one: (one["type"], one.get("purl", ""), one["name"]))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": "parakeet-stt"}},
        "components": components,
    }


def main() -> None:
    """Print the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    print(json.dumps(make_bill_of_materials(parser.parse_args().root), indent=1))


if __name__ == "__main__":
    main()
