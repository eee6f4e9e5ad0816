"""The alerting rules for Prometheus: they watch series that the service has, from before the first failure on."""

import re
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from support.compose import ROOT
from ubert_service.observability.metrics import PrometheusMetrics

(GROUP,) = yaml.safe_load((ROOT / "docker" / "alerts.yml").read_text())["groups"]


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
    watched = set(re.findall(r"ubert_\w+", rule["expr"]))
    assert watched
    assert watched <= {sample.partition(" ")[0] for sample in exposed}
    assert set(rule["annotations"]) == {"summary", "action"}


def test_failures_are_exposed_before_the_first(exposed: set[str]) -> None:
    assert {
        "ubert_requests_total route=/predict status=5xx",
        "ubert_store_failures_total operation=namespaces",
        *(f"ubert_refused_total limit={limit}" for limit in ("requests", "tokens", "wait", "closing")),
        "ubert_missing_states_total",
        "ubert_api_keys_outdated",
    } <= exposed
