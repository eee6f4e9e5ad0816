"""Problem details (RFC 9457) in answers of the service."""

import httpx


def problem_of(response: httpx.Response) -> tuple[int, str]:
    """Its status, and the name of its problem; of an answer that is none, no name."""
    return response.status_code, response.json().get("type", "").removeprefix("urn:u-bert:problem:")
