"""The manifests as kubectl renders them: valid for Kubernetes, and consistent with the programs that they start."""

import json
import os
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any, TypeAlias

import kubernetes_validate
import pytest
import typer
import yaml

from support.compose import ROOT, Dockerfile, commands_in
from support.files import shell_script
from ubert_model.running.sharding import Shard
from ubert_model.states import DEFAULT_CODEC
from ubert_service.commands.serve import app as service_app
from ubert_service.http.server import SECONDS_TO_FINISH
from ubert_service.leaving import SECONDS_TO_CLOSE
from ubert_service.observability.metrics import PrometheusMetrics
from ubert_service.settings import Settings
from ubert_training.cli import make_app

MANIFESTS = ROOT / "docker" / "k8s"
HEAD = MANIFESTS / "base" / "kustomization.yaml"
OLDEST, NEWEST = "1.33", kubernetes_validate.latest_version()
"""The first Kubernetes in which ``backoffLimitPerIndex`` is stable, and the newest whose schemas are installed."""

Manifest: TypeAlias = dict[str, Any]
Rendered: TypeAlias = dict[str, Manifest]


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return render(request.param)


def render(overlay: str) -> Rendered:
    """All manifests of an overlay, by kind and name."""
    return kustomize(MANIFESTS / "overlays" / overlay)


KUBECTL = Path(sysconfig.get_path("scripts")) / "kubectl"


def kustomize(folder: Path) -> Rendered:
    done = subprocess.run([KUBECTL, "kustomize", folder], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return by_name(done.stdout)


def models() -> Rendered:
    """The volume, and the pod that copies onto it; applied by themselves."""
    return by_name((MANIFESTS / "models.yaml").read_text(encoding="utf-8"))


def by_name(text: str) -> Rendered:
    return {f"{manifest['kind']}/{manifest['metadata']['name']}": manifest for manifest in yaml.safe_load_all(text)}


def job_of(manifest: Manifest) -> Manifest:
    """The specification of the jobs that a CronJob starts."""
    job: Manifest = manifest["spec"]["jobTemplate"]["spec"]
    return job


def template_of(manifest: Manifest) -> Manifest:
    """The template of its pods."""
    template: Manifest = (job_of(manifest) if manifest["kind"] == "CronJob" else manifest["spec"])["template"]
    return template


def pod_of(manifest: Manifest) -> Manifest:
    pod: Manifest = template_of(manifest)["spec"]
    return pod


def container_of(manifest: Manifest) -> Manifest:
    (container,) = pod_of(manifest)["containers"]
    assert isinstance(container, dict)
    return container


def environment_of(manifest: Manifest) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container_of(manifest)["env"]}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_manifest_follows_the_schema_of_its_kind(rendered: Rendered, version: str) -> None:
    assert len(rendered) == 8
    for manifest in [*rendered.values(), *models().values()]:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize(
    ("kind", "mistake"),
    [
        ("Deployment/ubert-service", {"replica": 3}),
        ("CronJob/ubert-precompute", {"suspend": "yes"}),
        ("HorizontalPodAutoscaler/ubert-service", {"maxReplicas": None}),
    ],
    ids=["a misspelt key", "a wrong type", "a missing value"],
)
def test_an_invalid_manifest_fails_the_schema(kind: str, mistake: dict[str, Any]) -> None:
    manifest = render("cpu")[kind]
    manifest["spec"] |= mistake
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, NEWEST, strict=True)


def test_every_variable_in_a_manifest_is_read_by_its_program(rendered: Rendered) -> None:
    serve = typer.main.get_command(service_app)
    known = {option.envvar for option in serve.params if isinstance(option.envvar, str)}
    assert environment_of(rendered["Deployment/ubert-service"]).keys() <= known
    precompute = typer.main.get_group(make_app(["precompute", "split"])).commands["precompute"]
    known_to_job = {f"UBERT_PRECOMPUTE_{option.name.upper()}" for option in precompute.params if option.name}
    known_to_shell = {"SHARDS", "HOME"}
    assert environment_of(rendered["CronJob/ubert-precompute"]).keys() <= known_to_job | known_to_shell


def test_service_and_job_take_store_and_codec_from_the_same_source(rendered: Rendered) -> None:
    service = environment_of(rendered["Deployment/ubert-service"])
    job = environment_of(rendered["CronJob/ubert-precompute"])
    assert service["UBERT_STORE"] == job["UBERT_PRECOMPUTE_STORE"]
    assert service["UBERT_CODEC"] == job["UBERT_PRECOMPUTE_CODEC"]
    settings = rendered[f"ConfigMap/{service['UBERT_CODEC']['configMapKeyRef']['name']}"]
    assert settings["data"]["codec"] == DEFAULT_CODEC


def test_the_indexes_of_the_job_cover_every_shard_once(rendered: Rendered) -> None:
    job = rendered["CronJob/ubert-precompute"]
    container = container_of(job)
    completions = job_of(job)["completions"]
    (script,) = container["args"]
    printing_script = script.replace("exec ubert", "printf '%s\\n'")
    shards = []
    for index in range(completions):
        environment = {
            "PATH": os.environ["PATH"],
            "JOB_COMPLETION_INDEX": str(index),
            "SHARDS": environment_of(job)["SHARDS"],
        }
        done = subprocess.run(
            [*container["command"], printing_script],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        words = done.stdout.splitlines()
        assert words[0] == "precompute"
        shards.append(Shard.parse(words[words.index("--shard") + 1]))
    assert shards == [Shard(number=number, shards=completions) for number in range(1, completions + 1)]


def test_a_replica_uses_as_many_threads_as_it_asks_for_processors(rendered: Rendered) -> None:
    service = environment_of(rendered["Deployment/ubert-service"])
    requested = {"resourceFieldRef": {"resource": "requests.cpu"}}
    assert (service["UBERT_THREADS"], service["UBERT_CONCURRENCY"]) == (requested, requested)


def test_the_job_in_the_readme_runs_its_command_once(rendered: Rendered, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pipeline = r"kubectl create job verify-1 [^|]+\|\s+(kubectl patch .+?) \|\s+kubectl create -f -"
    found = re.search(pipeline, readme, re.DOTALL)
    assert found is not None
    template = job_of(rendered["CronJob/ubert-precompute"])
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "verify-1"}, "spec": template}
    done = subprocess.run(
        ["sh", "-c", found[1]],
        input=json.dumps(job),
        env={"PATH": f"{KUBECTL.parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    patched = json.loads(done.stdout)
    kubernetes_validate.validate(patched, NEWEST, strict=True)
    assert patched["spec"].pop("completions") == 1
    container = container_of(patched)
    assert container.pop("args") == ['exec ubert states verify --repair --store "$UBERT_PRECOMPUTE_STORE"']
    assert "UBERT_PRECOMPUTE_STORE" in environment_of(rendered["CronJob/ubert-precompute"])


def test_the_command_that_promotes_shows_the_key_in_no_argument(tmp_path: Path) -> None:
    found = re.search(r"kubectl exec -i deploy/ubert-service -- (sh -c .+) ID \$urls < key", commands_in(HEAD))
    assert found is not None
    shell_script(tmp_path / "ubert-serve-promote", 'echo "$UBERT_API_KEY: $*"')
    done = subprocess.run(
        ["sh", "-c", f"{found[1]} ID --url http://one:8000 --url http://two:8000"],
        input="the key\n",
        env={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "the key: ID --url http://one:8000 --url http://two:8000\n"


def test_probes_and_service_use_the_port_that_the_image_listens_on(rendered: Rendered) -> None:
    container = container_of(rendered["Deployment/ubert-service"])
    (port,) = container["ports"]
    image = Dockerfile.read(ROOT / "docker" / "service.Dockerfile").last_stage.environment
    assert str(port["containerPort"]) == image["UBERT_PORT"]
    paths = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {probe["port"] for probe in paths.values()} == {port["name"]}
    assert [probe["path"] for probe in paths.values()] == ["/healthz", "/healthz", "/readyz"]
    assert rendered["Service/ubert-service"]["spec"]["ports"][0]["targetPort"] == port["name"]


def test_every_selector_matches_the_pods_of_the_service_and_not_of_the_job(rendered: Rendered) -> None:
    deployment = rendered["Deployment/ubert-service"]
    labels = template_of(deployment)["metadata"]["labels"].items()
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        rendered["Service/ubert-service"]["spec"]["selector"],
        rendered["PodDisruptionBudget/ubert-service"]["spec"]["selector"]["matchLabels"],
        rendered["NetworkPolicy/ubert-service"]["spec"]["podSelector"]["matchLabels"],
    ]
    job = template_of(rendered["CronJob/ubert-precompute"])["metadata"]["labels"].items()
    for selector in selectors:
        assert selector.items() <= labels
        assert not selector.items() <= job


def test_a_pod_that_ends_serves_until_balancers_know_and_then_has_time_for_its_longest_request(
    rendered: Rendered,
) -> None:
    deployment = rendered["Deployment/ubert-service"]
    still_serving = container_of(deployment)["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = float(environment_of(deployment)["UBERT_DRAIN_SECONDS"])
    assert still_serving >= 5
    ended = still_serving + drain + SECONDS_TO_FINISH + SECONDS_TO_CLOSE
    assert pod_of(deployment)["terminationGracePeriodSeconds"] > ended


@pytest.mark.parametrize("name", ["Deployment/ubert-service", "CronJob/ubert-precompute"])
def test_a_signal_ends_a_program_that_has_no_handler_yet(rendered: Rendered, name: str) -> None:
    assert pod_of(rendered[name])["shareProcessNamespace"] is True, "else it is process 1, which ignores the signal"


def test_every_container_runs_with_least_privilege_and_a_memory_limit(rendered: Rendered) -> None:
    for name in ("Deployment/ubert-service", "CronJob/ubert-precompute"):
        pod, container = pod_of(rendered[name]), container_of(rendered[name])
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001, "the images' user"
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        assert [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")] == ["/tmp"]


def test_the_service_wants_keys_from_a_folder_that_follows_the_secret(rendered: Rendered) -> None:
    deployment = rendered["Deployment/ubert-service"]
    (mount,) = [mount for mount in container_of(deployment)["volumeMounts"] if mount["name"] == "keys"]
    assert str(Path(environment_of(deployment)["UBERT_API_KEYS"]).parent) == mount["mountPath"]
    assert "subPath" not in mount, "it would keep the first keys"
    (secret,) = [volume["secret"] for volume in pod_of(deployment)["volumes"] if volume["name"] == "keys"]
    assert secret == {"secretName": "ubert-api-keys"}, "and not optional"


def test_pods_are_reached_only_at_the_port_of_the_service(rendered: Rendered) -> None:
    everything = rendered["NetworkPolicy/ubert"]["spec"]
    for name in ("Deployment/ubert-service", "CronJob/ubert-precompute"):
        assert (
            everything["podSelector"]["matchLabels"].items()
            <= template_of(rendered[name])["metadata"]["labels"].items()
        )
    assert everything["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in everything
    (rule,) = rendered["NetworkPolicy/ubert-service"]["spec"]["ingress"]
    (port,) = container_of(rendered["Deployment/ubert-service"])["ports"]
    assert rule["ports"] == [{"protocol": "TCP", "port": port["containerPort"]}]
    assert all(rule["from"]), "an empty peer would be everybody"


def test_the_readme_names_all_that_a_cluster_must_have(rendered: Rendered) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"On Kubernetes {OLDEST} or newer" in readme
    text = yaml.safe_dump(rendered)
    secrets = set(re.findall(r"secretName: (\S+)", text)) | set(
        re.findall(r"secretKeyRef:\s+key: \S+\s+name: (\S+)", text)
    )
    assert secrets == set(re.findall(r"kubectl create secret generic (\S+)", readme))
    claims = set(re.findall(r"claimName: (\S+)", text))
    assert {f"PersistentVolumeClaim/{claim}" for claim in claims} <= models().keys()


def test_the_autoscalers_metric_is_computed_from_metrics_of_the_service(tmp_path: Path) -> None:
    component = MANIFESTS / "components" / "queue-wait"
    (rule,) = yaml.safe_load((component / "metrics-adapter-values.yaml").read_text(encoding="utf-8"))["rules"]["custom"]
    kustomization = {
        "resources": [os.path.relpath(MANIFESTS / "overlays" / "cpu", tmp_path)],
        "components": [os.path.relpath(component, tmp_path)],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    autoscaler = kustomize(tmp_path)["HorizontalPodAutoscaler/ubert-service"]
    kubernetes_validate.validate(autoscaler, NEWEST, strict=True)
    metric = autoscaler["spec"]["metrics"][1]["pods"]
    assert rule["name"]["as"] == metric["metric"]["name"]
    longest_ms = Settings.model_fields["queue_wait_ms"].default
    average_ms = re.fullmatch(r"(\d+)m", metric["target"]["averageValue"])
    assert average_ms is not None
    assert 0 < float(average_ms[1]) < longest_ms, "no wait is longer"
    assert f"+ {longest_ms / 1000:g} * " in rule["metricsQuery"], "a refused request counts as the longest wait"
    series = re.match(r"\w+", rule["seriesQuery"])
    assert series is not None
    exposition = PrometheusMetrics().exposition().decode()
    assert f"# TYPE {series[0].removesuffix('_bucket')} histogram" in exposition
    assert set(re.findall(r"ubert_\w+", rule["metricsQuery"])) == {"ubert_refused_total"}
    assert "# TYPE ubert_refused_total counter" in exposition


def test_the_gpu_overlay_changes_only_devices_and_images() -> None:
    cpu, gpu = render("cpu"), render("gpu")
    for name, variable in (
        ("Deployment/ubert-service", "UBERT_DEVICE"),
        ("CronJob/ubert-precompute", "UBERT_PRECOMPUTE_DEVICE"),
    ):
        with_gpu = container_of(gpu[name])
        assert with_gpu["resources"]["limits"].pop("nvidia.com/gpu") == 1
        assert with_gpu["env"].pop() == {"name": variable, "value": "cuda"}
        assert pod_of(gpu[name]).pop("tolerations") == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
        assert with_gpu["image"] == f"{container_of(cpu[name])['image']}-cuda"
        with_gpu["image"] = container_of(cpu[name])["image"]
    assert gpu == cpu


def test_the_store_evicts_nothing_and_persists_every_write() -> None:
    values = yaml.safe_load((MANIFESTS / "store-values.yaml").read_text(encoding="utf-8"))
    settings = dict(line.split(maxsplit=1) for line in values["valkeyConfig"].splitlines() if not line.startswith("#"))
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["appendonly"] == "yes"
    gigabytes = int(settings["maxmemory"].removesuffix("gb"))
    assert int(values["resources"]["limits"]["memory"].removesuffix("Gi")) >= 2 * gigabytes
