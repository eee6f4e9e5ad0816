"""The OpenAPI description without a bundle or a store: ``python -m ubert_service.openapi`` prints it."""

import json

from ubert_service.app import described_app


def description_text() -> str:
    """The description as it is committed: indented JSON, one member per line."""
    return json.dumps(described_app().openapi(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(description_text(), end="")
