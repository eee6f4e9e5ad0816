"""``docker/constraints.txt``, the versions that the images and CI install, agrees with ``pyproject.toml``."""

import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.compose import ROOT, Dockerfile

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
CONSTRAINTS = [Requirement(line) for line in (ROOT / "docker" / "constraints.txt").read_text().splitlines()]
VERSIONS = {constraint.name: next(iter(constraint.specifier)).version for constraint in CONSTRAINTS}
IMAGE_PLATFORM = {"sys_platform": "linux", "platform_machine": "x86_64", "python_version": "3.11"}


def test_each_constraint_is_one_version_of_one_package_that_any_index_may_have() -> None:
    assert len(VERSIONS) == len(CONSTRAINTS)
    assert [str(constraint) for constraint in CONSTRAINTS] == [f"{name}=={at}" for name, at in VERSIONS.items()]
    assert [name for name, version in VERSIONS.items() if "+" in version] == [], "the build of one index"


def test_each_constraint_lies_within_all_ranges_of_the_project() -> None:
    ranges = [Requirement(line) for lines in [PROJECT["dependencies"], *EXTRAS.values()] for line in lines]
    constrained = [(needed, VERSIONS.get(canonicalize_name(needed.name))) for needed in ranges]
    outside = [str(needed) for needed, version in constrained if version and version not in needed.specifier]
    assert outside == []


@pytest.mark.parametrize("image", ["service", "training"])
def test_an_image_installs_no_direct_dependency_without_a_constraint(image: str) -> None:
    commands = [
        command
        for command in Dockerfile.read(ROOT / "docker" / f"{image}.Dockerfile").all("RUN")
        if "pip " in command and "--no-deps" not in command
    ]
    assert commands
    assert all(command.count(" install ") == command.count(" install -c constraints.txt ") for command in commands)
    extra = {"service": "serve", "training": "train"}[image]
    assert any(f'".[{extra}]"' in command for command in commands)
    assert "u-bert[core]" in EXTRAS[extra]
    needed = map(Requirement, [*PROJECT["dependencies"], *EXTRAS["core"], *EXTRAS[extra]])
    on_image = [one for one in needed if one.marker is None or one.marker.evaluate({**IMAGE_PLATFORM, "extra": ""})]
    assert {canonicalize_name(one.name) for one in on_image} - VERSIONS.keys() == {PROJECT["name"]}
