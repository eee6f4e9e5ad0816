"""Reading the metrics of a running service."""

import httpx
from prometheus_client.parser import text_string_to_metric_families


def metric(client: httpx.Client, name: str, **labels: str) -> float:
    """The sum of the samples of this name with at least these labels; 0 if there is none."""
    text = client.get("/metrics").raise_for_status().text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
