"""Checks the Kubernetes manifests against Kubernetes' own schemas, without network.

    python -m scripts.release.check_manifests
    python -m scripts.release.check_manifests --kustomize "kubectl kustomize"

Renders each overlay, and compares every resource with the strict JSON schemas of two versions: the oldest Kubernetes
that the manifests claim to run on, and the newest that kubernetes_validate has. The rendering needs no kustomize: it
covers the part of kustomize that the overlays use, and refuses any other. --kustomize compares the result with that of
the real one. Of KubeRay's RayJob, whose schema Kubernetes does not have, the pods are compared with the schemas, and
everything else with the fields of KubeRay's own definition.
"""

from __future__ import annotations

import argparse
import copy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

ROOT = Path(__file__).parents[2]
OVERLAYS = sorted((ROOT / "deploy" / "kubernetes" / "overlays").iterdir())
OLDEST = "1.30"  # preStop's `sleep`, and fields of the rest
NEWEST = kubernetes_validate.latest_version()

RAYJOB = ROOT / "deploy" / "kuberay" / "rayjob.yaml"
# Of https://github.com/ray-project/kuberay, ray-operator/config/crd/bases/ray.io_rayjobs.yaml of 1.1 and later.
RAYJOB_FIELDS = {
    "entrypoint", "entrypointNumCpus", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit",
    "rayClusterSpec",
}  # fmt: skip
CLUSTER_FIELDS = {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
GROUP_FIELDS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}

Resource = dict[str, Any]


def render(folder: Path) -> list[Resource]:
    """The resources that `kubectl apply -k FOLDER` applies.

    Raises ValueError for a part of kustomize that is not implemented here.
    """
    plan = yaml.safe_load((folder / "kustomization.yaml").read_text())
    if unknown := plan.keys() - {"apiVersion", "kind", "resources", "images", "patches"}:
        raise ValueError(f"{folder}: {', '.join(sorted(unknown))} can't be rendered here")
    resources: list[Resource] = []
    for name in plan["resources"]:
        path = folder / name
        resources += render(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    for patch in plan.get("patches", ()):
        (target,) = [one for one in resources if is_target(one, patch["target"])]
        for operation in yaml.safe_load(patch["patch"]):
            apply(operation, target)
    for image in plan.get("images", ()):
        for container in [one for resource in resources for one in containers(resource)]:
            if container["image"].partition(":")[0] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
    return resources


def is_target(resource: Resource, target: dict[str, str]) -> bool:
    """Whether a patch is for this resource. target: the patch's kind and name."""
    return (resource["kind"], resource["metadata"]["name"]) == (target["kind"], target["name"])


def containers(resource: Resource) -> list[Resource]:
    """The containers of a Deployment; none of other resources."""
    found: list[Resource] = (
        resource["spec"]["template"]["spec"]["containers"] if resource["kind"] == "Deployment" else []
    )
    return found


def apply(operation: dict[str, Any], resource: Resource) -> None:
    """One operation of a JSON patch (RFC 6902), `add` or `replace`."""
    at: Any = resource
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    for part in parents:
        at = at[int(part)] if isinstance(at, list) else at[part]
    value = copy.deepcopy(operation["value"])
    if operation["op"] == "add" and isinstance(at, list) and last == "-":
        at.append(value)
    elif isinstance(at, dict) and (operation["op"] == "add" or (operation["op"] == "replace" and last in at)):
        at[last] = value
    else:
        raise ValueError(f"{operation['op']} {operation['path']} can't be rendered here")


def find_problem(resource: Resource, version: str) -> str | None:
    """Why this version of Kubernetes refuses the resource; None if it accepts it."""
    try:
        kubernetes_validate.validate(resource, version, strict=True)
    except kubernetes_validate.ValidationError as exc:
        return f"{'.'.join(map(str, exc.path))}: {exc.message}"
    except kubernetes_validate.SchemaNotFoundError as exc:
        return str(exc.message)
    return None


def find_rayjob_problem(job: Resource, version: str) -> str | None:
    """Why KubeRay, or this version of Kubernetes, refuses a RayJob; None if nothing is known against it."""
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    unknown = job["spec"].keys() - RAYJOB_FIELDS | cluster.keys() - CLUSTER_FIELDS
    for group in groups:
        unknown |= group.keys() - GROUP_FIELDS
        if not all(isinstance(value, str) for value in group["rayStartParams"].values()):
            return f"rayStartParams: {group['rayStartParams']} are not all text"
    if (job["apiVersion"], job["kind"]) != ("ray.io/v1", "RayJob") or unknown:
        return f"fields that a RayJob does not have: {', '.join(sorted(unknown))}"
    pods = [
        {"apiVersion": "v1", "kind": "PodTemplate", "metadata": job["metadata"], "template": group["template"]}
        for group in groups
    ]
    return next((problem for pod in pods if (problem := find_problem(pod, version))), None)


def by_name(resources: list[Resource]) -> dict[tuple[str, str], Resource]:
    """The resources by kind and name."""
    return {(one["kind"], one["metadata"]["name"]): one for one in resources}


def main() -> int:
    """Check and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kustomize", metavar="COMMAND", help="compare with what this command renders")
    command = parser.parse_args().kustomize
    failures = 0
    for overlay in OVERLAYS:
        resources = render(overlay)
        print(f"{overlay.relative_to(ROOT)}")
        for resource in resources:
            for version in (OLDEST, NEWEST):
                problem = find_problem(resource, version)
                failures += problem is not None
                print(f"  {resource['kind']:24} {resource['metadata']['name']:24} {version:6} {problem or 'valid'}")
        if command:
            rendered = subprocess.run([*shlex.split(command), overlay], check=True, capture_output=True).stdout
            same = by_name(list(yaml.safe_load_all(rendered))) == by_name(resources)
            failures += not same
            print(f"  `{command}` renders {'the same' if same else 'SOMETHING ELSE'}")
    for version in (OLDEST, NEWEST):
        problem = find_rayjob_problem(yaml.safe_load(RAYJOB.read_text()), version)
        failures += problem is not None
        print(f"{RAYJOB.relative_to(ROOT)} {version} {problem or 'valid'}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
