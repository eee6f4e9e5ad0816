"""The alerting rules for Prometheus: they watch series that the service has, from before the first failure on, and fire
while something is wrong, but not once it is over.
"""

import json
import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from support.compose import BASE, ROOT, load_compose
from ubert_service.observability.metrics import PrometheusMetrics

RULES = ROOT / "docker" / "alerts.yml"
PROMETHEUS = yaml.safe_load((ROOT / "docker" / "prometheus.yml").read_text())
PROMTOOL = os.environ.get("TEST_PROMTOOL") or shutil.which("promtool")
(GROUP,) = yaml.safe_load(RULES.read_text())["groups"]
(JOB,) = set(re.findall(r'job="([^"]+)"', RULES.read_text()))

needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: apt-get install prometheus")


@pytest.fixture(scope="module")
def exposed() -> set[str]:
    """The samples of a service that has answered one request and asked its store once, both with success."""
    metrics = PrometheusMetrics()
    metrics.request_answered(route="/predict", status=200, seconds=0.001)
    metrics.store_called(operation="namespaces", seconds=0.001, failed=False)
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        "".join([sample.name, *(f" {name}={value}" for name, value in sorted(sample.labels.items()))])
        for family in families
        for sample in family.samples
    }


@pytest.mark.parametrize("rule", GROUP["rules"], ids=lambda rule: rule["alert"])
def test_every_rule_watches_metrics_that_exist_and_says_what_to_do(rule: dict[str, Any], exposed: set[str]) -> None:
    watched = set(re.findall(r"\b(?:ubert|process)_\w+|\bup\b", rule["expr"]))
    assert watched
    assert watched <= {"up", *(sample.partition(" ")[0] for sample in exposed)}
    assert set(rule["annotations"]) == {"summary", "action"}
    assert rule["labels"] in ({"severity": "page"}, {"severity": "ticket"})


def test_failures_are_exposed_before_the_first(exposed: set[str]) -> None:
    assert {
        "ubert_requests_total route=/predict status=5xx",
        "ubert_store_failures_total operation=namespaces",
        *(f"ubert_refused_total limit={limit}" for limit in ("requests", "tokens", "wait", "closing")),
        "ubert_missing_states_total",
        "ubert_api_keys_outdated",
    } <= exposed


def test_each_replica_of_the_compose_project_is_scraped_by_itself_under_the_name_that_the_rules_know() -> None:
    (scrape,) = PROMETHEUS["scrape_configs"]
    (replicas,) = scrape["dns_sd_configs"]
    (name,) = replicas["names"]
    service = load_compose(BASE)["services"][name]
    assert "outside" in service["networks"]
    assert (replicas["type"], replicas["port"]) == ("A", 8000)
    assert scrape["job_name"] == JOB
    assert PROMETHEUS["rule_files"] == [RULES.name]


def test_each_pod_is_scraped_under_the_name_that_the_rules_know(tmp_path: Path) -> None:
    manifests = ROOT / "docker" / "k8s"
    kustomization = {
        "resources": [os.path.relpath(manifests / "overlays" / "cpu", tmp_path)],
        "components": [os.path.relpath(manifests / "components" / "prometheus-operator", tmp_path)],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    kubectl = Path(sysconfig.get_path("scripts")) / "kubectl"
    rendered = subprocess.run([kubectl, "kustomize", tmp_path], check=True, stdout=subprocess.PIPE, timeout=60).stdout
    of_kind = {manifest["kind"]: manifest.get("spec") for manifest in yaml.safe_load_all(rendered)}
    monitor, pod = of_kind["PodMonitor"], of_kind["Deployment"]["template"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert endpoint["port"] in {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": JOB}]


@needs_promtool
def test_prometheus_accepts_the_configuration_and_its_rules() -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "check", "config", ROOT / "docker" / "prometheus.yml"], check=False, timeout=60)
    assert done.returncode == 0


A, B = "a:8000", "b:8000"
PREDICT = 'ubert_requests_total{route="/predict",status="%s",instance="%s"}'
MINUTE = 4
"""Samples, one every 15 s."""
HALF_HOUR = 30 * MINUTE


def steadily(per_minute: float) -> str:
    """A counter that rises by so much a minute."""
    return f"0+{per_minute / MINUTE}x{HALF_HOUR}"


def at_once(count: int) -> str:
    """A counter that rises once, after five minutes."""
    return f"0x{5 * MINUTE - 1} {count}x{25 * MINUTE}"


def for_minutes(minutes: int, value: str, otherwise: str) -> str:
    """A gauge that has another value from the fifth minute on, for so many minutes."""
    before, during = f"{otherwise}x{5 * MINUTE - 1}", f"{value}x{minutes * MINUTE - 1}"
    rest = 25 - minutes
    return f"{before} {during} {otherwise}x{rest * MINUTE}" if rest else f"{before} {during}"


HEALTHY = {
    f'{name}{{job="u-bert",instance="{instance}"}}': values
    for instance in (A, B)
    for name, values in {
        "up": f"1x{HALF_HOUR}",
        "ubert_ready": f"1x{HALF_HOUR}",
        "ubert_residents_stale_seconds": f"0x{HALF_HOUR}",
        "ubert_memory_limit_bytes": f"2e9x{HALF_HOUR}",
        "process_resident_memory_bytes": f"1e9x{HALF_HOUR}",
        "process_max_fds": f"65536x{HALF_HOUR}",
        "process_open_fds": f"900x{HALF_HOUR}",
        "process_start_time_seconds": f"100x{HALF_HOUR}",
    }.items()
} | {
    series: values
    for instance in (A, B)
    for series, values in {
        PREDICT % ("2xx", instance): steadily(600),
        PREDICT % ("5xx", instance): steadily(0),
        f'ubert_info{{bundle="one",instance="{instance}"}}': f"1x{HALF_HOUR}",
    }.items()
}


def of_a(name: str) -> str:
    return f'{name}{{job="u-bert",instance="{A}"}}'


BLIP = {
    'ubert_residents_stale_seconds{job="u-bert",instance="a:8000"}': f"0x{5 * MINUTE - 1} 6 0x{25 * MINUTE}",
    PREDICT % ("5xx", A): at_once(40),
    PREDICT % ("504", A): at_once(40),
    f'ubert_refused_total{{limit="wait",instance="{A}"}}': at_once(100),
    f'ubert_missing_states_total{{instance="{A}"}}': at_once(1),
    **{
        f'ubert_store_failures_total{{operation="{operation}",instance="{instance}"}}': at_once(30)
        for operation in ("changes", "namespaces", "states")
        for instance in (A, B)
    },
}


CASES: list[tuple[dict[str, str], set[str]]] = [
    ({}, set()),
    (BLIP, set()),
    ({PREDICT % ("2xx", A): steadily(12), PREDICT % ("5xx", A): at_once(1)}, set()),
    ({f'ubert_refused_total{{limit="wait",instance="{A}"}}': steadily(0.25)}, set()),
    ({of_a("up"): for_minutes(25, "0", "1")}, {"UbertDown"}),
    ({series: f"1x{MINUTE} stale" for series in HEALTHY if series.startswith("ubert_ready")}, {"UbertAbsent"}),
    ({of_a("ubert_ready"): for_minutes(5, "0", "1")}, {"UbertNotReady"}),
    ({of_a("ubert_residents_stale_seconds"): for_minutes(5, "60", "0")}, {"UbertStoreAway"}),
    ({f'ubert_store_failures_total{{operation="put",instance="{A}"}}': steadily(10)}, {"UbertStoreFails"}),
    ({f'ubert_missing_states_total{{instance="{A}"}}': steadily(2)}, {"UbertStatesMissing"}),
    ({f'ubert_refused_total{{limit="wait",instance="{A}"}}': steadily(30)}, {"UbertRefuses"}),
    ({f'ubert_refused_total{{limit="closing",instance="{A}"}}': steadily(30)}, set()),
    ({PREDICT % ("5xx", A): steadily(12)}, {"UbertErrors"}),
    ({'ubert_requests_total{route="/readyz",status="5xx",instance="a:8000"}': steadily(60)}, set()),
    ({PREDICT % ("504", A): steadily(300)}, {"UbertDeadlinesPass"}),
    ({PREDICT % ("504", A): steadily(60)}, set()),
    ({of_a("ubert_api_keys_outdated"): for_minutes(5, "1", "0")}, {"UbertKeysOutdated"}),
    ({f'ubert_info{{bundle="two",instance="{A}"}}': f"1x{HALF_HOUR}"}, {"UbertBundlesDiffer"}),
    ({f'ubert_info{{bundle="two",instance="{A}"}}': f"1x{10 * MINUTE} stale"}, set()),
    ({of_a("process_resident_memory_bytes"): for_minutes(15, "1.9e9", "1e9")}, {"UbertMemoryLow"}),
    ({of_a("process_resident_memory_bytes"): for_minutes(5, "1.9e9", "1e9")}, set()),
    ({of_a("process_start_time_seconds"): f"100x{MINUTE} 200x{MINUTE} 300x{MINUTE} 400x99"}, {"UbertRestarts"}),
    ({of_a("process_open_fds"): for_minutes(10, "60000", "900")}, {"UbertDescriptorsLow"}),
]
"""What differs from healthy replicas, and which alerts fire at some time in half an hour."""


@needs_promtool
@pytest.mark.parametrize(("changes", "fires"), CASES)
def test_an_alert_fires_while_something_is_wrong_and_not_after_a_moment_of_it(
    changes: dict[str, str], fires: set[str], tmp_path: Path
) -> None:
    assert PROMTOOL is not None
    case = {
        "interval": "15s",
        "input_series": [{"series": series, "values": values} for series, values in (HEALTHY | changes).items()],
        "promql_expr_test": [
            {
                "expr": 'group by (alertname) (last_over_time(ALERTS{alertstate="firing"}[30m]))',
                "eval_time": "30m",
                "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(fires)],
            }
        ],
    }
    test = tmp_path / "test.yml"
    test.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "15s", "tests": [case]}))
    done = subprocess.run(
        [PROMTOOL, "test", "rules", test], check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60
    )
    assert done.returncode == 0, done.stdout.decode()


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    assert set().union(*(fires for _, fires in CASES)) == {rule["alert"] for rule in GROUP["rules"]}
