"""Settings: where each value comes from, and what is refused."""

from pathlib import Path

import pytest
import typer

from ubert_model.errors import ConfigError
from ubert_service.commands import serve as serve_command
from ubert_service.settings import Settings, read_toml


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "serve.toml"
    path.write_text('codec = "from-file"\nbundle = "b"\nstore = "redis://127.0.0.1:1/0"\nmax-body-bytes = 7\n')
    return path


def configured_codec(arguments: list[str]) -> str:
    """The codec that the command would use: an unknown one is refused by name before anything is opened."""
    with pytest.raises(ConfigError, match="codec") as refusal:
        serve_command.app(arguments, standalone_mode=False)
    return str(refusal.value).split("'")[1]


@pytest.mark.usefixtures("isolated_logging")
def test_a_flag_beats_the_environment_which_beats_the_file(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--config", str(toml)]
    assert configured_codec(arguments) == "from-file"
    monkeypatch.setenv("UBERT_CODEC", "from-environment")
    assert configured_codec(arguments) == "from-environment"
    assert configured_codec([*arguments, "--codec", "from-flag"]) == "from-flag"


@pytest.mark.usefixtures("isolated_logging")
def test_the_environment_can_name_the_file(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UBERT_SERVE_CONFIG", str(toml))
    assert configured_codec([]) == "from-file"


@pytest.mark.usefixtures("isolated_logging")
def test_the_config_file_of_the_training_commands_is_not_read(
    toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = tmp_path / "training.toml"
    training.write_text("[finetune]\nseed = 1\n")
    monkeypatch.setenv("UBERT_CONFIG", str(training))
    assert configured_codec(["--config", str(toml)]) == "from-file"


def test_a_setting_has_one_name_in_flags_files_and_the_environment() -> None:
    options = {
        option.name: option for option in typer.main.get_command(serve_command.app).params if option.name != "config"
    }
    assert options.keys() == Settings.model_fields.keys()
    for name, option in options.items():
        assert f"--{name.replace('_', '-')}" in option.opts
        assert option.envvar == f"UBERT_{name.upper()}"


def test_the_help_says_how_an_api_key_is_revoked() -> None:
    (option,) = (option for option in typer.main.get_command(serve_command.app).params if option.name == "api_keys")
    help_text = str(getattr(option, "help", ""))
    assert "revokes" in help_text
    assert "reloaded" in help_text


def test_a_file_names_settings_with_hyphens_or_underscores(toml: Path) -> None:
    assert read_toml(toml)["max_body_bytes"] == 7


@pytest.mark.parametrize("content", ["colour = 1", "port = ", b"\xff".decode("latin-1")])
def test_a_file_with_an_unknown_setting_or_invalid_toml_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"serve\.toml"):
        read_toml(path)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        read_toml(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("name", "value"),
    [("port", 65536), ("port", -1), ("threads", -1), ("concurrency", 0), ("device", "tpu"), ("max_body_bytes", 0)],
)
def test_a_value_out_of_range_is_refused_with_its_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{name} = "):
        Settings.of(**{"bundle": "b", "store": "s", name: value})


def test_the_repr_of_settings_hides_the_password_of_the_store() -> None:
    assert "secret" not in repr(Settings.of(bundle="b", store="redis://:secret@host"))


@pytest.mark.parametrize(
    ("given", "checks"),
    [
        ({}, True),
        ({"host": "localhost"}, True),
        ({"host": "::1"}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "u-bert.example"}, False),
        ({"host": "0.0.0.0", "allowed_hosts": ["u-bert.example"]}, True),
        ({"api_keys": Path("keys.toml")}, False),
    ],
)
def test_host_names_are_checked_if_listed_or_on_loopback_without_api_keys(
    given: dict[str, object], checks: bool
) -> None:
    assert Settings.of(bundle="b", store="lmdb:s", **given).checks_hosts == checks


def test_a_url_as_an_allowed_host_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"allowed_hosts.*http://u-bert\.example:80"):
        Settings.of(bundle="b", store="lmdb:s", allowed_hosts=["http://u-bert.example:80"])
