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


def codec_in_force(arguments: list[str]) -> str:
    """An unknown codec is refused by name, before a bundle or a store is looked at: so the name tells which won."""
    with pytest.raises(ConfigError, match="codec") as refusal:
        serve_command.app(arguments, standalone_mode=False)
    return str(refusal.value).split("'")[1]


@pytest.mark.usefixtures("isolated_logging")
def test_a_flag_beats_the_environment_which_beats_the_file(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--config", str(toml)]
    assert codec_in_force(arguments) == "from-file"
    monkeypatch.setenv("UBERT_CODEC", "from-environment")
    assert codec_in_force(arguments) == "from-environment"
    assert codec_in_force([*arguments, "--codec", "from-flag"]) == "from-flag"


@pytest.mark.usefixtures("isolated_logging")
def test_the_file_itself_can_be_named_by_the_environment(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UBERT_SERVE_CONFIG", str(toml))
    assert codec_in_force([]) == "from-file"


@pytest.mark.usefixtures("isolated_logging")
def test_the_file_of_the_offline_side_is_not_taken_for_the_services(
    toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline = tmp_path / "offline.toml"
    offline.write_text("[finetune]\nseed = 1\n")
    monkeypatch.setenv("UBERT_CONFIG", str(offline))
    assert codec_in_force(["--config", str(toml)]) == "from-file"


def test_a_setting_has_one_name_in_flags_files_and_the_environment() -> None:
    options = {
        option.name: option for option in typer.main.get_command(serve_command.app).params if option.name != "config"
    }
    assert options.keys() == Settings.model_fields.keys()
    for name, option in options.items():
        assert f"--{name.replace('_', '-')}" in option.opts
        assert option.envvar == f"UBERT_{name.upper()}"


def test_the_help_says_what_it_takes_to_revoke_a_key() -> None:
    (option,) = (option for option in typer.main.get_command(serve_command.app).params if option.name == "api_keys")
    help_text = str(getattr(option, "help", ""))
    assert "revokes" in help_text
    assert "reloaded" in help_text


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
def test_host_names_are_checked_where_only_this_machine_should_call_a_service_without_keys(
    given: dict[str, object], checks: bool
) -> None:
    assert Settings.of(bundle="b", store="lmdb:s", **given).checks_hosts == checks


def test_an_allowed_host_is_a_name_and_no_address() -> None:
    with pytest.raises(ConfigError, match=r"allowed_hosts.*http://u-bert\.example:80"):
        Settings.of(bundle="b", store="lmdb:s", allowed_hosts=["http://u-bert.example:80"])
