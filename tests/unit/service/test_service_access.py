"""API keys: the scope that a request needs, the keys that have it, and that no key or hash is disclosed."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from support.waiting import wait_until
from ubert_model.errors import ConfigError
from ubert_service.access.key_file import KeyFile
from ubert_service.access.keys import AccessScope, ApiKeys, needed_scope, new_key
from ubert_service.app import described_app
from ubert_service.commands import key as key_command
from ubert_service.errors import ForbiddenError, UnauthenticatedError
from ubert_service.observability.metrics import PrometheusMetrics


def keys_of(tmp_path: Path, *tables: str) -> ApiKeys:
    path = tmp_path / "keys.toml"
    path.write_text("\n".join(tables))
    return ApiKeys.read(path)


def test_a_key_is_authorised_for_its_scopes_alone(tmp_path: Path) -> None:
    reader, reader_table = new_key("page", ["read"])
    writer, writer_table = new_key("import-job", ["read", "write"])
    keys = keys_of(tmp_path, reader_table, writer_table)

    assert keys.authorise(f"Bearer {reader}", "read") == "page"
    assert keys.authorise(f"bearer  {writer} ", "write") == "import-job"
    with pytest.raises(ForbiddenError, match="page"):
        keys.authorise(f"Bearer {reader}", "write")
    with pytest.raises(ForbiddenError, match="import-job"):
        keys.authorise(f"Bearer {writer}", "admin")


def test_the_admin_scope_includes_read_but_not_write(tmp_path: Path) -> None:
    operator, table = new_key("operator", ["admin"])
    keys = keys_of(tmp_path, table)
    for scope in ("admin", "read"):
        assert keys.authorise(f"Bearer {operator}", scope) == "operator"
    with pytest.raises(ForbiddenError, match="write"):
        keys.authorise(f"Bearer {operator}", "write")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic {key}", "{key}", "Bearer {key}x", "Bearer ü"])
def test_a_request_without_a_known_key_is_refused_without_showing_any(tmp_path: Path, header: str | None) -> None:
    key, table = new_key("page", ["read"])
    with pytest.raises(UnauthenticatedError) as refusal:
        keys_of(tmp_path, table).authorise(header and header.format(key=key), "read")
    assert key not in str(refusal.value)


def test_a_key_file_takes_effect_once_two_checks_have_read_the_same_keys(tmp_path: Path) -> None:
    (first, first_table), (second, second_table) = new_key("first", ["read"]), new_key("second", ["read"])
    path = tmp_path / "keys.toml"
    path.write_text(first_table + second_table)
    keys = KeyFile(path, PrometheusMetrics())
    path.write_text(first_table)  # half written, and well-formed
    keys.check()
    assert keys.authorise(f"Bearer {second}", "read") == "second"
    path.write_text(first_table + second_table)
    keys.check()
    keys.check()
    assert keys.authorise(f"Bearer {second}", "read") == "second"
    path.write_text(first_table)  # complete: the second key is revoked
    keys.check()
    keys.check()
    assert keys.authorise(f"Bearer {first}", "read") == "first"
    with pytest.raises(UnauthenticatedError):
        keys.authorise(f"Bearer {second}", "read")


@pytest.mark.parametrize("content", ["", "[page", '[page]\nsha256 = "short"\nscopes = ["read"]', None], ids=repr)
def test_a_key_file_that_becomes_unusable_changes_no_keys_and_is_logged_once(
    tmp_path: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    key, table = new_key("page", ["read"])
    path = tmp_path / "keys.toml"
    path.write_text(table)
    keys = KeyFile(path, PrometheusMetrics())
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    for _ in range(4):
        keys.check()
    assert keys.authorise(f"Bearer {key}", "read") == "page"
    for header in ("Bearer wrong", None):
        with pytest.raises(UnauthenticatedError):
            keys.authorise(header, "read")
    (logged,) = [record for record in caplog.records if record.name == "ubert_service.access.key_file"]
    assert logged.levelname == "ERROR"
    assert str(path) in logged.getMessage()


def test_each_time_a_key_file_becomes_unusable_or_usable_again_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, table = new_key("page", ["read"])
    path = tmp_path / "keys.toml"
    path.write_text(table)
    keys = KeyFile(path, PrometheusMetrics())
    for content in ("", table, "", table):
        path.write_text(content)
        for _ in range(4):
            keys.check()
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"] * 2


def test_an_unforeseen_error_of_a_check_is_logged_and_reported_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (first, first_table), (second, second_table) = new_key("first", ["read"]), new_key("second", ["read"])
    path, metrics = tmp_path / "keys.toml", PrometheusMetrics()
    path.write_text(first_table)

    def reported(value: float) -> bool:
        return f"ubert_api_keys_outdated {value}".encode() in metrics.exposition()

    with KeyFile(path, metrics, interval_s=0.01) as keys:
        with monkeypatch.context() as failing:
            failing.setattr(ApiKeys, "read", lambda _: 1 // 0)
            wait_until(lambda: reported(1.0))
        assert keys.authorise(f"Bearer {first}", "read") == "first"
        path.write_text(second_table)
        wait_until(lambda: reported(0.0))
        wait_until(lambda: "second" in caplog.text)
        assert keys.authorise(f"Bearer {second}", "read") == "second"
    assert "ZeroDivisionError" in caplog.text


def test_the_key_file_holds_no_key() -> None:
    key, table = new_key("page", ["read"])
    other, _ = new_key("page", ["read"])
    assert key not in table
    assert key != other
    assert len(key) >= 43  # 256 bits


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/healthz", None),
        ("GET", "/readyz", None),
        ("GET", "/metrics", None),
        ("GET", "/openapi.json", None),
        ("GET", "/", None),
        ("GET", "/console/main.js", None),
        ("HEAD", "/healthz", None),
        ("POST", "/healthz", "write"),
        ("POST", "/predict", "read"),
        ("POST", "/rank", "read"),
        ("POST", "/explain", "read"),
        ("GET", "/users/u1", "read"),
        ("POST", "/reviews", "write"),
        ("DELETE", "/reviews/r1", "write"),
        ("POST", "/admin/promote", "admin"),
        ("POST", "/admin/unknown", "admin"),
        ("POST", "/unknown", "write"),
        ("GET", "/unknown", "read"),
    ],
)
def test_each_route_needs_its_scope(method: str, path: str, scope: AccessScope | None) -> None:
    assert needed_scope(method, path) == scope


def test_exactly_the_routes_that_need_a_key_document_401_and_403() -> None:
    for path, operations in described_app().openapi()["paths"].items():
        for method, operation in operations.items():
            needs_key = needed_scope(method.upper(), path) is not None
            assert ({"401", "403"} <= set(operation["responses"])) == needs_key, (method, path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[page]\nscopes = ['read']",
        "[page]\nsha256 = 'short'\nscopes = ['read']",
        f"[page]\nsha256 = '{'0' * 64}'\nscopes = []",
        f"[page]\nsha256 = '{'0' * 64}'\nscopes = ['all']",
        f"['a b']\nsha256 = '{'0' * 64}'\nscopes = ['read']",
        "page = ",
        "page = " + "[" * 10_000,
    ],
    ids=lambda content: content[:30],
)
def test_an_unusable_key_file_is_refused_without_showing_a_hash(tmp_path: Path, content: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        keys_of(tmp_path, content)
    assert "0" * 64 not in str(refusal.value)


def test_a_missing_key_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"keys\.toml"):
        ApiKeys.read(tmp_path / "keys.toml")


def test_the_service_reads_what_the_key_command_writes(tmp_path: Path) -> None:
    made = CliRunner().invoke(key_command.app, ["page", "--scope", "read", "--scope", "write"])
    assert made.exit_code == 0
    keys = keys_of(tmp_path, made.stdout)
    assert keys.authorise(f"Bearer {made.stderr.strip()}", "write") == "page"


@pytest.mark.parametrize("arguments", [["two words", "--scope", "read"], ["page", "--scope", "everything"]])
def test_the_key_command_refuses_an_invalid_name_or_scope_in_one_line(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ubert-serve-key", *arguments])
    with pytest.raises(SystemExit) as ended:
        key_command.main()
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert shown.err.startswith(f"ubert-serve-key: key '{arguments[0]}', scope '{arguments[2]}': ")
