"""The files in deploy/: Kubernetes, BentoCloud and Compose accept them, and they fit the service."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import attrs
import httpx
import promql_parser
import pytest
import schema
import yaml
from bentoml._internal.cloud.schemas.modelschemas import DeploymentStrategy
from bentoml._internal.cloud.schemas.schemasv2 import CreateDeploymentSchema
from bentoml._internal.configuration.v2 import _SERVICE_CONFIG
from bentoml._internal.utils.cattr import bentoml_cattr
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from parakeet_stt.cli.app import app
from parakeet_stt.server.settings import Settings
from scripts.release.check_dashboard import COMPOSE, DASHBOARD, Query, read_alerts, read_queries
from scripts.release.check_manifests import (
    NEWEST,
    OLDEST,
    OVERLAYS,
    RAYJOB,
    Resource,
    by_name,
    find_problem,
    find_rayjob_problem,
    render,
)
from service import ParakeetSTT
from tests.conftest import ROOT, SAMPLES, Server

RENDERED = {overlay.name: render(overlay) for overlay in OVERLAYS}
SETTINGS = {str(field.validation_alias.choices[0]): name  # type: ignore[union-attr]
            for name, field in Settings.model_fields.items()}  # fmt: skip
PROMETHEUS_LABELS = {"instance", "job", "le"}  # which Prometheus adds, and which every histogram has
MADE_BY_PROMETHEUS = {"up"}


def deployment(overlay: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod's specification, and its one container's."""
    pod = by_name(RENDERED[overlay])["Deployment", "parakeet-stt"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def environment(overlay: str) -> dict[str, str]:
    return {one["name"]: one.get("value", "from a secret, say") for one in deployment(overlay)[1]["env"]}


@pytest.fixture(params=sorted(RENDERED))
def overlay(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_takes_every_resource(overlay: str, version: str) -> None:
    problems = {one["kind"]: find_problem(one, version) for one in RENDERED[overlay]}
    assert set(problems.values()) == {None}, problems
    assert len(problems) == 7


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("Deployment", lambda one: one["spec"].update(replica=2)),
        ("Deployment", lambda one: one["spec"]["template"]["spec"].update(terminationGracePeriodSeconds="610")),
        ("HorizontalPodAutoscaler", lambda one: one["spec"].pop("maxReplicas")),
        ("NetworkPolicy", lambda one: one.update(apiVersion="networking.k8s.io/v2")),
    ],
)
def test_what_kubernetes_would_refuse_is_reported(kind: str, change: Any) -> None:
    resource: Resource = copy.deepcopy(by_name(RENDERED["gpu"])[kind, "parakeet-stt"])
    assert find_problem(resource, NEWEST) is None
    change(resource)
    assert find_problem(resource, NEWEST)


def test_what_the_renderer_does_not_know_of_kustomize_it_refuses(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: []\nnamePrefix: x-\n")
    with pytest.raises(ValueError, match="namePrefix"):
        render(tmp_path)


def test_a_pod_has_one_worker_and_with_a_gpu_exactly_one() -> None:
    assert not any("STT_WORKERS" in environment(overlay) for overlay in RENDERED)
    assert deployment("gpu")[1]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert environment("gpu")["STT_DEVICE"] == "cuda"
    assert environment("cpu")["STT_DEVICE"] == "cpu"
    assert int(environment("cpu")["STT_THREADS"]) == int(deployment("cpu")[1]["resources"]["requests"]["cpu"]) - 1


def test_a_pod_has_no_rights_that_it_does_not_need(overlay: str) -> None:
    pod, container = deployment(overlay)
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert by_name(RENDERED[overlay])["NetworkPolicy", "parakeet-stt"]["spec"]["egress"] == []
    written = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert written == {"/tmp"}


def test_a_pod_may_take_minutes_to_load_and_every_probe_has_a_time_out(overlay: str) -> None:
    _, container = deployment(overlay)
    start = container["startupProbe"]
    assert start["httpGet"]["path"] == container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert start["failureThreshold"] * start["periodSeconds"] >= 300
    assert all(container[f"{kind}Probe"]["timeoutSeconds"] >= 5 for kind in ("startup", "readiness", "liveness"))


def test_a_pod_has_time_to_end(overlay: str) -> None:
    pod, container = deployment(overlay)
    left = pod["terminationGracePeriodSeconds"] - container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = float(environment(overlay).get("STT_DRAIN_SECONDS", Settings.model_fields["drain_seconds"].default))
    assert left >= drain + 5
    assert drain >= 500  # for long files


def test_the_largest_uploads_fit_into_the_temporary_folder(overlay: str) -> None:
    pod, container = deployment(overlay)
    (tmp,) = [volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"] if volume["name"] == "tmp"]
    assert tmp == container["resources"]["requests"]["ephemeral-storage"] == "16Gi"
    assert 16 * int(environment(overlay)["STT_MAX_UPLOAD_BYTES"]) <= 16 << 30


def test_everything_points_at_the_same_pods(overlay: str) -> None:
    resources = by_name(RENDERED[overlay])
    labels = resources["Deployment", "parakeet-stt"]["spec"]["template"]["metadata"]["labels"]
    assert resources["Deployment", "parakeet-stt"]["spec"]["selector"]["matchLabels"] == labels
    assert resources["Service", "parakeet-stt"]["spec"]["selector"] == labels
    assert resources["PodDisruptionBudget", "parakeet-stt"]["spec"]["selector"]["matchLabels"] == labels
    assert resources["NetworkPolicy", "parakeet-stt"]["spec"]["podSelector"]["matchLabels"] == labels
    namespaces = {one["metadata"].get("namespace", one["metadata"]["name"]) for one in RENDERED[overlay]}
    assert namespaces == {"parakeet-stt"}
    target = resources["HorizontalPodAutoscaler", "parakeet-stt"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) in resources


def test_more_pods_come_before_callers_are_sent_away(overlay: str) -> None:
    metrics = by_name(RENDERED[overlay])["HorizontalPodAutoscaler", "parakeet-stt"]["spec"]["metrics"]
    targets = {one["pods"]["metric"]["name"]: int(one["pods"]["target"]["averageValue"]) for one in metrics}
    assert targets["stt_queue_audio_seconds"] < 1800  # what may wait on the slowest device
    assert targets["stt_sessions"] < int(environment(overlay)["STT_MAX_SESSIONS"])


def test_every_setting_that_is_given_exists_and_has_a_value_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    compose = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]["stt"]["environment"]
    cloud = yaml.safe_load((ROOT / "deploy/bentocloud/deployment.yaml").read_text())["envs"]
    keys = ROOT / ".env.example"  # any file will do for one that is mounted
    for given in (
        *(environment(overlay) for overlay in RENDERED),
        {name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for name, value in compose.items()},
        {one["name"]: one["value"] for one in cloud},
    ):
        assert given.keys() <= SETTINGS.keys()
        changed = {name: str(keys) if name == "STT_API_KEYS_FILE" else value for name, value in given.items()}
        settings = Settings(**changed)  # type: ignore[arg-type]
        assert {SETTINGS[name] for name in given} <= settings.model_fields_set


def lost(given: Any, kept: Any, at: str = "") -> list[str]:
    """The keys of what is given that are not in what was kept of it."""
    if isinstance(given, dict):
        gone = [f"{at}.{name}" for name in given if name not in kept]
        return gone + [one for name in given.keys() & kept.keys() for one in lost(given[name], kept[name], name)]
    if isinstance(given, list):
        return [one for ours, theirs in zip(given, kept, strict=True) for one in lost(ours, theirs, at)]
    return []


def taken_by_bentocloud(config: dict[str, Any]) -> Any:
    return bentoml_cattr.structure({"bento": "parakeet_stt", **config}, CreateDeploymentSchema)


def test_bentocloud_has_a_place_for_everything_in_its_file() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "bentocloud" / "deployment.yaml").read_text())
    deployed = taken_by_bentocloud(config)
    assert lost(config, attrs.asdict(deployed)) == []
    service = deployed.services[ParakeetSTT.name]  # type: ignore[attr-defined]
    assert DeploymentStrategy(service.deployment_strategy) is DeploymentStrategy.RollingUpdate
    assert (service.scaling.min_replicas, service.scaling.max_replicas) == (1, 4)
    assert service.scaling.policy.scale_down_behavior in ("fast", "stable", "disabled")
    assert schema.Schema(_SERVICE_CONFIG).validate(service.config_overrides)


@pytest.mark.parametrize(
    "wrong",
    [
        {"service": {}},
        {"services": {"parakeet_stt": {"strategy": "RollingUpdate"}}},
        {"services": {"parakeet_stt": {"scaling": {"policy": {"scale_down": "fast"}}}}},
        {"envs": [{"name": "STT_DEVICE", "value": "cuda", "secret": True}]},
    ],
)
def test_a_key_that_bentocloud_would_ignore_is_found(wrong: dict[str, Any]) -> None:
    assert len(lost(wrong, attrs.asdict(taken_by_bentocloud(wrong)))) == 1


def test_what_compose_mounts_is_there_and_prometheus_asks_the_service() -> None:
    compose = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    brought_by_the_operator = {"./weights", "./keys"}
    mounted = {mount.split(":")[0] for one in compose["services"].values() for mount in one["volumes"]}
    mounted |= {secret["file"] for secret in compose["secrets"].values()}
    for source in mounted - compose["volumes"].keys() - brought_by_the_operator:
        assert (COMPOSE / source).exists(), source
    (scrape,) = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": ["stt:3000"]}]
    assert "stt" in compose["services"]
    provisioned = COMPOSE / "grafana" / "provisioning" / "datasources" / "prometheus.yaml"
    (source,) = yaml.safe_load(provisioned.read_text())["datasources"]
    chosen = {one["name"]: one for one in json.loads(DASHBOARD.read_text())["templating"]["list"]}
    assert chosen["datasource"]["current"]["value"] == source["uid"]


def test_the_panels_do_not_overlap_and_have_each_an_id_and_a_description() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
        assert panel["type"] == "row" or panel["description"]


@pytest.fixture(scope="module")
def exposed(server: Server) -> dict[str, set[str]]:
    """The series that a server has after a request, and the labels of each."""
    with (SAMPLES / "short.flac").open("rb") as file:
        httpx.post(f"{server.openai_url}/audio/transcriptions", files={"file": file}, data={"model": "whisper-1"},
                   timeout=60).raise_for_status()  # fmt: skip
    text = httpx.get(f"{server.url}/metrics", timeout=10).text
    series: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        if not family.samples:  # labelled, and nothing of it has happened
            series[f"{family.name}_total" if family.type == "counter" else family.name] = set()
        for sample in family.samples:
            series.setdefault(sample.name, set()).update(sample.labels)
    return series


def asked_of(query: Query) -> list[tuple[str, set[str]]]:
    """The series that a query names, and the labels that it needs of them."""
    found = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            assert node.name
            found.append((node.name, {matcher.name for matcher in node.matchers.matchers}))

    promql_parser.walk(promql_parser.parse(query.expression), pre_visit=visit)
    return found


@pytest.mark.parametrize(
    "query", [*read_queries(), *read_alerts()], ids=lambda query: f"{query.panel}: {query.expression}"
)
def test_every_query_asks_for_series_and_labels_that_the_service_has(
    query: Query, exposed: dict[str, set[str]]
) -> None:
    series = asked_of(query)
    assert series
    for name, labels in series:
        assert name in exposed.keys() | MADE_BY_PROMETHEUS, name
        assert labels <= exposed.get(name, set()) | PROMETHEUS_LABELS, (name, labels)


def test_the_autoscaler_follows_metrics_that_the_service_has(overlay: str, exposed: dict[str, set[str]]) -> None:
    metrics = by_name(RENDERED[overlay])["HorizontalPodAutoscaler", "parakeet-stt"]["spec"]["metrics"]
    assert {one["pods"]["metric"]["name"] for one in metrics} <= exposed.keys()


def test_the_page_of_operations_has_every_metric_of_a_real_server(exposed: dict[str, set[str]]) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    bare = {re.sub("_(bucket|sum|count)$", "", name) for name in exposed if name.startswith("stt_")}
    assert {name for name in bare if f"| `{name}` |" not in page} == set()


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kuberay_takes_the_job(version: str) -> None:
    job = yaml.safe_load(RAYJOB.read_text())
    assert find_rayjob_problem(job, version) is None
    for path, wrong in [("entrypint", "x"), ("rayClusterSpec", {**job["spec"]["rayClusterSpec"], "heads": []})]:
        assert find_rayjob_problem({**job, "spec": {**job["spec"], path: wrong}}, version)
    cluster = copy.deepcopy(job)
    cluster["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["images"] = "x"
    assert find_rayjob_problem(cluster, version)


def test_the_job_runs_the_command_on_the_ray_of_the_lock() -> None:
    spec = yaml.safe_load(RAYJOB.read_text())["spec"]
    version = re.search(r"^ray==(\S+)", (ROOT / "requirements-bulk.lock").read_text(), re.MULTILINE)
    assert version
    assert spec["rayClusterSpec"]["rayVersion"] == version[1]
    program, *arguments = spec["entrypoint"].split()
    assert program == "parakeet"
    help_text = CliRunner().invoke(app, [arguments[0], "--help"]).output
    assert all(one in help_text for one in arguments if one.startswith("--"))
    for group in [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]]:
        (container,) = group["template"]["spec"]["containers"]
        assert {one["name"] for one in container["env"]} - {"RAY_USAGE_STATS_ENABLED"} <= SETTINGS.keys()
