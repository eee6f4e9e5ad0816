"""Settings: where each value comes from, and what is refused."""

from pathlib import Path

import pytest

from ubert_model.errors import ConfigError
from ubert_service import cli
from ubert_service.settings import Settings, read_toml


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "serve.toml"
    path.write_text('codec = "from-file"\nbundle = "b"\nstore = "redis://127.0.0.1:1/0"\nmax-body-bytes = 7\n')
    return path


def codec_in_force(arguments: list[str]) -> str:
    """An unknown codec is refused by name, before a bundle or a store is looked at: so the name tells which won."""
    with pytest.raises(ConfigError, match="codec") as refusal:
        cli.app(arguments, standalone_mode=False)
    return str(refusal.value).split("'")[1]


@pytest.mark.usefixtures("logging_of_its_own")
def test_a_flag_beats_the_environment_which_beats_the_file(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--config", str(toml)]
    assert codec_in_force(arguments) == "from-file"
    monkeypatch.setenv("UBERT_CODEC", "from-environment")
    assert codec_in_force(arguments) == "from-environment"
    assert codec_in_force([*arguments, "--codec", "from-flag"]) == "from-flag"


@pytest.mark.usefixtures("logging_of_its_own")
def test_the_file_itself_can_be_named_by_the_environment(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UBERT_CONFIG", str(toml))
    assert codec_in_force([]) == "from-file"


def test_a_file_names_settings_with_hyphens_or_underscores(toml: Path) -> None:
    assert read_toml(toml)["max_body_bytes"] == 7


@pytest.mark.parametrize("content", ["colour = 1", "port = ", b"\xff".decode("latin-1")])
def test_a_file_with_an_unknown_setting_or_no_toml_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"serve\.toml"):
        read_toml(path)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        read_toml(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("name", "value"),
    [("port", 65536), ("port", -1), ("threads", -1), ("concurrency", 0), ("device", "tpu"), ("max_body_bytes", 0)],
)
def test_a_value_out_of_range_is_refused_with_its_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{name} = "):
        Settings.of(**{"bundle": "b", "store": "s", name: value})


def test_the_store_url_is_not_shown_since_it_may_hold_a_password() -> None:
    assert "secret" not in repr(Settings.of(bundle="b", store="redis://:secret@host"))
