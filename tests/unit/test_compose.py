"""The compose files and Dockerfiles agree with the specification, with each other and with the programs they start."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import tomllib
from fnmatch import fnmatch
from graphlib import TopologicalSorter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer

from support.compose import BASE, GPU, ROOT, Dockerfile, commands_in, environment_of, load_compose, volumes_of
from support.files import shell_script
from ubert_model.states import DEFAULT_CODEC
from ubert_service.commands.serve import app as service_app
from ubert_service.http.problems import (
    BODY_TOO_SLOW,
    DEADLINE_PASSED,
    INTERNAL,
    MALFORMED_BODY,
    MEDIA_TYPE,
    NOT_READY,
    Problem,
)
from ubert_service.http.server import SECONDS_TO_FINISH
from ubert_service.leaving import SECONDS_TO_CLOSE
from ubert_service.schemas import MAX_REQUEST_SECONDS
from ubert_service.settings import Settings
from ubert_training.cli import make_app

DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
FILE_SETS = {"base": (BASE,), "base and GPU override": (BASE, GPU)}

each_file_set = pytest.mark.parametrize("files", FILE_SETS.values(), ids=FILE_SETS.keys())
each_dockerfile = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)


@pytest.fixture(scope="session")
def specification() -> jsonschema.Draft202012Validator:
    """The compose specification's own schema, which comes with ``check-jsonschema`` (none of its code runs)."""
    path = distribution("check-jsonschema").locate_file("check_jsonschema/builtin_schemas/vendor/compose-spec.json")
    return jsonschema.Draft202012Validator(json.loads(Path(str(path)).read_text(encoding="utf-8")))


def service_settings(service: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings that ``ubert-serve`` reads from the environment of its container."""
    for name in [name for name in os.environ if name.startswith("UBERT_")]:
        monkeypatch.delenv(name)
    for name, value in {**dockerfile_of(service).last_stage.environment, **environment_of(service)}.items():
        if name.startswith("UBERT_"):
            monkeypatch.setenv(name, value)
    context = typer.main.get_command(service_app).make_context("ubert-serve", [])
    return Settings.of(**{name: context.params[name] for name in Settings.model_fields})


def dockerfile_of(service: dict[str, Any]) -> Dockerfile:
    return Dockerfile.read(ROOT / service["build"]["dockerfile"])


@pytest.mark.parametrize("files", [*FILE_SETS.values(), (GPU,)], ids=[*FILE_SETS, "GPU override alone"])
def test_the_compose_files_follow_the_specification(
    files: tuple[Path, ...], specification: jsonschema.Draft202012Validator
) -> None:
    assert [error.message for error in specification.iter_errors(load_compose(*files))] == []


@pytest.mark.parametrize(
    "mistake",
    [{"depend_on": ["redis"]}, {"ports": 8000}, {"depends_on": {"redis": {"condition": "healthy"}}}],
    ids=["a misspelt key", "a wrong type", "an unknown condition"],
)
def test_an_invalid_compose_file_fails_the_schema(
    mistake: dict[str, Any], specification: jsonschema.Draft202012Validator
) -> None:
    compose = load_compose(BASE)
    compose["services"]["service"] |= mistake
    assert not specification.is_valid(compose)


@each_file_set
def test_redis_train_service_and_proxy_start_in_this_order(files: tuple[Path, ...]) -> None:
    services = load_compose(*files)["services"]
    conditions = {
        name: {other: need["condition"] for other, need in service.get("depends_on", {}).items()}
        for name, service in services.items()
    }
    assert conditions == {
        "redis": {},
        "train": {"redis": "service_healthy"},
        "service": {"redis": "service_healthy", "train": "service_completed_successfully"},
        "proxy": {"service": "service_healthy"},
    }
    assert list(TopologicalSorter(conditions).static_order()) == ["redis", "train", "service", "proxy"]
    assert "healthcheck" in services["redis"]
    assert "healthcheck" in services["service"]
    assert services["train"]["restart"] == "no", "a job that restarts never completes"


def test_the_job_and_the_service_have_the_same_default_codec() -> None:
    assert f"codec=${{UBERT_CODEC:-{DEFAULT_CODEC}}}" in (ROOT / "docker" / "train.sh").read_text(encoding="utf-8")
    assert Settings.model_fields["codec"].default == DEFAULT_CODEC


@each_file_set
@pytest.mark.parametrize("environment", [{}, {"REDIS_URL": "rediss://cache:6380/3", "UBERT_CODEC": "fp32"}])
def test_the_job_and_the_service_use_the_same_store_codec_and_device(
    files: tuple[Path, ...], environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    services = load_compose(*files, environment=environment)["services"]
    job = environment_of(services["train"])
    settings = service_settings(services["service"], monkeypatch)
    assert settings.store == job["UBERT_STORE"] == environment.get("REDIS_URL", "redis://redis:6379/0")
    assert settings.codec == job["UBERT_CODEC"] == environment.get("UBERT_CODEC", DEFAULT_CODEC)
    assert settings.device == job["UBERT_DEVICE"] == ("cuda" if GPU in files else "auto")


def test_the_url_of_the_store_may_stand_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = tmp_path / "url"
    url.write_text(f"lmdb:{tmp_path}/none\n", encoding="utf-8")
    services = load_compose(BASE, environment={"REDIS_URL": f"file:{url}"})["services"]
    assert service_settings(services["service"], monkeypatch).store == f"lmdb:{tmp_path}/none"
    assert environment_of(services["train"])["UBERT_STORE"] == f"file:{url}"


def test_the_service_reads_the_bundle_that_the_job_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    services = load_compose(BASE)["services"]
    reviews, work = services["train"]["command"]
    mounts = volumes_of(services["train"])
    assert mounts[work] == ("models", True)
    assert mounts[reviews] == ("./reviews", False)
    assert volumes_of(services["service"]) == {work: ("models", False)}
    assert service_settings(services["service"], monkeypatch).bundle == Path(work) / "bundle"
    assert '--out "$work/bundle"' in (ROOT / "docker" / "train.sh").read_text(encoding="utf-8")


def test_bundle_shadow_bundle_and_api_keys_are_set_by_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    default = service_settings(load_compose(BASE, environment={})["services"]["service"], monkeypatch)
    assert (default.shadow_bundle, default.api_keys) == (None, None)
    chosen = {"UBERT_WORK": "/data/a", "UBERT_SHADOW_BUNDLE": "/data/b/bundle", "UBERT_API_KEYS": "/data/keys.toml"}
    services = load_compose(BASE, environment=chosen)["services"]
    settings = service_settings(services["service"], monkeypatch)
    assert (settings.bundle, settings.shadow_bundle, settings.api_keys) == tuple(
        map(Path, ("/data/a/bundle", "/data/b/bundle", "/data/keys.toml"))
    )
    assert services["train"]["command"][1] == "/data/a", "the job works in the folder of the same bundle"


def run_recipe(lines: list[str], folder: Path, *, docker: str = "exit 1") -> subprocess.CompletedProcess[str]:
    """Run lines of the head of the compose file in ``folder``. ``docker``: a shell script in place of the command."""
    recipe = commands_in(BASE)
    assert all(line in recipe for line in lines)
    command = shell_script(folder / "bin" / "docker", docker)
    return subprocess.run(
        ["sh", "-c", "\n".join(lines)],
        env={"PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}"},
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_recipe_for_a_new_model_keeps_the_keys_and_ends_with_the_new_model_alone(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("UBERT_WORK=/data/old\nREDIS_MAXMEMORY=4gb\n", encoding="utf-8")
    for line, expected in (
        (r"printf '%s\n' UBERT_API_KEYS=/data/keys.toml UBERT_SHADOW_BUNDLE=/data/next/bundle >> .env", "/data/old"),
        ("sed -i '/^UBERT_SHADOW_BUNDLE=/d; /^UBERT_WORK=/d' .env && echo UBERT_WORK=/data/next >> .env", "/data/next"),
    ):
        assert run_recipe([line], tmp_path).returncode == 0
        settings = (tmp_path / ".env").read_text(encoding="utf-8").splitlines()
        environment = dict(setting.split("=") for setting in settings)
        assert len(environment) == len(settings)
        service = environment_of(load_compose(BASE, environment=environment)["services"]["service"])
        assert service["UBERT_BUNDLE"] == f"{expected}/bundle"
        assert service["UBERT_API_KEYS"] == "/data/keys.toml"
        assert service["UBERT_SHADOW_BUNDLE"] == ("/data/next/bundle" if expected == "/data/old" else "")
        assert environment["REDIS_MAXMEMORY"] == "4gb"


@pytest.mark.parametrize("healthy", [True, False])
def test_old_replicas_end_only_once_the_new_ones_are_healthy(healthy: bool, tmp_path: Path) -> None:
    replace = [
        "old=$(docker compose ps -q service)",
        "docker compose up -d --no-deps --no-recreate --wait --scale service=6 service && "
        "docker stop $old && docker rm $old",
    ]
    undo = 'docker rm -f $(docker compose ps -aq service | grep -vxF "${old:?}")'
    answers = f"""echo "$@" >> calls
    case "$*" in
        *"ps -q"*) printf '%s\\n' old1 old2 old3 ;;
        *"ps -aq"*) printf '%s\\n' new1 old1 old2 old3 new2 ;;
        *up*) exit {0 if healthy else 1} ;;
    esac"""
    result = run_recipe(replace if healthy else [*replace, undo], tmp_path, docker=answers)
    assert result.returncode == 0, result.stderr
    calls = [call for call in (tmp_path / "calls").read_text(encoding="utf-8").splitlines() if " ps " not in call]
    (start, *ends) = calls
    assert "up -d --no-deps --no-recreate --wait --scale service=6 service" in start
    assert ends == (["stop old1 old2 old3", "rm old1 old2 old3"] if healthy else ["rm -f new1 new2"])


def test_the_command_that_undoes_a_failed_replacement_removes_nothing_in_another_shell(tmp_path: Path) -> None:
    undo = 'docker rm -f $(docker compose ps -aq service | grep -vxF "${old:?}")'
    run_recipe([undo], tmp_path, docker='echo "$@" >> calls; echo replica')
    assert "replica" not in (tmp_path / "calls").read_text(encoding="utf-8")


def test_every_program_that_the_documented_commands_start_is_in_the_image_of_their_service() -> None:
    documented = commands_in(BASE) + (ROOT / "README.md").read_text(encoding="utf-8")
    found = set(re.findall(r"--entrypoint (\S+) (\w+)", documented))
    assert {("ubert", "train"), ("ubert-serve-key", "service"), ("sh", "train")} == found


def test_redis_is_reachable_over_the_internal_network_only() -> None:
    compose = load_compose(BASE)
    services = compose["services"]
    assert compose["networks"]["store"] == {"internal": True}
    assert services["redis"]["networks"] == ["store"]
    assert "ports" not in services["redis"]
    assert all("store" in services[name]["networks"] for name in ("train", "service"))


@pytest.mark.parametrize("environment", [{}, {"UBERT_PORT": "9000", "UBERT_ADDRESS": "0.0.0.0"}])
def test_the_published_port_leads_through_the_proxy_to_the_service(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    services = load_compose(BASE, environment=environment)["services"]
    settings = service_settings(services["service"], monkeypatch)
    (published,) = services["proxy"]["ports"]
    address, host_port, container_port = published.split(":")
    assert address == environment.get("UBERT_ADDRESS", "127.0.0.1")
    assert host_port == environment.get("UBERT_PORT", "8000")
    proxy = proxy_sections()
    assert f"bind :{container_port}" in proxy["frontend service"]
    for backend in ("backend any", "backend by-user"):
        assert f"server-template replica 1-16 service:{settings.port}" in proxy[backend]
        assert "option httpchk GET /readyz" in proxy[backend]
    assert dockerfile_of(services["service"]).all("EXPOSE") == [str(settings.port)]
    assert settings.host == "0.0.0.0"


def test_the_service_can_be_scaled_to_several_containers() -> None:
    service = load_compose(BASE)["services"]["service"]
    assert not service.keys() & {"ports", "container_name"}, "only one container can have that"


@pytest.mark.parametrize("balance", ["any", "by-user"])
def test_every_value_of_ubert_balance_is_a_backend_of_the_proxy(balance: str) -> None:
    services = load_compose(BASE, environment={} if balance == "any" else {"UBERT_BALANCE": balance})["services"]
    assert environment_of(services["proxy"]) == {"UBERT_BALANCE": balance}
    assert f"backend {balance}" in proxy_sections()
    assert "use_backend %[env(UBERT_BALANCE)]" in proxy_sections()["frontend service"]
    (mounted,) = volumes_of(services["proxy"]).values()
    assert mounted == ("./docker/haproxy.cfg", False)


def test_the_proxys_release_reads_a_json_number_in_bounded_time() -> None:
    """CVE-2025-11230: until 3.0.12, ``json_query`` of a body with ``1e-2000000000`` took seconds per number."""
    assert "json_query" in " ".join(proxy_sections()["frontend service"])
    release = load_compose(BASE)["services"]["proxy"]["image"].removeprefix("haproxy:")
    assert [int(part) for part in release.split(".")] >= [3, 0, 12]


def test_the_bodies_that_the_proxy_buffers_fit_into_its_memory() -> None:
    limits = dict(line.split() for line in proxy_sections()["global"] if line.startswith(("maxconn", "tune.bufsize")))
    memory = load_compose(BASE)["services"]["proxy"]["deploy"]["resources"]["limits"]["memory"]
    assert 2 * int(limits["maxconn"]) * int(limits["tune.bufsize"]) < int(memory.removesuffix("m")) * 1024**2


def test_the_proxys_timeouts_exceed_the_services_request_timeouts() -> None:
    proxy = proxy_sections()
    (default,) = [line.split()[2] for line in proxy["defaults"] if line.startswith("timeout server")]
    assert float(default.removesuffix("s")) > Settings.model_fields["request_timeout"].default
    for backend in ("backend any", "backend by-user"):
        (asked,) = [line.split()[3] for line in proxy[backend] if line.startswith("http-request set-timeout server")]
        assert float(asked.removesuffix("s")) > MAX_REQUEST_SECONDS


def test_the_services_file_descriptors_suffice_for_all_connections_of_the_proxy() -> None:
    (maxconn,) = (line.split()[1] for line in proxy_sections()["global"] if line.startswith("maxconn"))
    assert load_compose(BASE)["services"]["service"]["ulimits"]["nofile"] > 2 * int(maxconn)


def test_the_proxys_own_errors_are_problems_with_the_services_types() -> None:
    errors = [shlex.split(line) for line in proxy_sections()["defaults"] if line.startswith("http-error")]
    problems = {int(words[2]): Problem.model_validate_json(words[-1]) for words in errors}
    assert all(words[4] == MEDIA_TYPE for words in errors)
    assert all(problem.status == status for status, problem in problems.items())
    kinds = {400: MALFORMED_BODY, 408: BODY_TOO_SLOW, 500: INTERNAL, 503: NOT_READY, 504: DEADLINE_PASSED}
    expected = {status: (f"urn:u-bert:problem:{kind.name}", kind.title) for status, kind in kinds.items()}
    lost = ("urn:u-bert:problem:replica-lost", "The replica ended before it answered")
    assert {status: (one.type, one.title) for status, one in problems.items()} == expected | {502: lost}


def test_the_stop_grace_period_covers_the_drain_and_the_longest_request() -> None:
    services, settings = load_compose(BASE)["services"], Settings.model_fields
    assert settings["request_timeout"].default <= SECONDS_TO_FINISH
    longest = settings["drain_seconds"].default + SECONDS_TO_FINISH + SECONDS_TO_CLOSE
    for name in ("service", "proxy"):
        assert float(services[name]["stop_grace_period"].removesuffix("s")) > longest, name
    assert services["proxy"]["stop_signal"] == "SIGUSR1", "on SIGTERM, HAProxy drops running requests"


def proxy_sections() -> dict[str, list[str]]:
    """The lines of the proxy's configuration, without comments, by the header of their section."""
    sections: dict[str, list[str]] = {}
    for line in (ROOT / "docker" / "haproxy.cfg").read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].rstrip()
        if text and not text.startswith(" "):
            lines = sections.setdefault(text, [])
        elif text:
            lines.append(text.strip())
    return sections


@each_file_set
def test_every_variable_in_a_compose_file_is_read_by_its_program(files: tuple[Path, ...]) -> None:
    services = load_compose(*files)["services"]
    serve = typer.main.get_command(service_app)
    known_to_service = {option.envvar for option in serve.params if isinstance(option.envvar, str)}
    assert environment_of(services["service"]).keys() <= known_to_service
    script = (ROOT / "docker" / "train.sh").read_text(encoding="utf-8")
    known_to_job = set(re.findall(r"\$\{(UBERT_\w+):", script))
    assert environment_of(services["train"]).keys() <= known_to_job
    # The script also reads flags of the step `split`, which are set in docker/train.env.
    assert known_to_job - environment_of(services["train"]).keys() <= flags_of("split")


def flags_of(step: str) -> set[str]:
    """The environment variables of a step's flags."""
    commands: dict[str, Any] = getattr(typer.main.get_command(make_app([step])), "commands", {})
    return {f"UBERT_{step}_{parameter.name}".upper() for parameter in commands[step].params}


@each_file_set
@pytest.mark.parametrize("name", ["train", "service"])
def test_the_optional_env_files_are_ignored_by_git(files: tuple[Path, ...], name: str) -> None:
    service = load_compose(*files)["services"][name]
    assert service["env_file"] == [{"path": f"docker/{name}.env", "required": False}]
    assert f"/docker/{name}.env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_the_service_keeps_its_defaults_except_bundle_store_and_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = service_settings(load_compose(BASE)["services"]["service"], monkeypatch)
    # The port is published on the host, so without a list of hosts it would be open to DNS rebinding.
    hosts = ("service", "proxy")
    assert settings == Settings.of(
        bundle=settings.bundle, store=settings.store, host=settings.host, allowed_hosts=hosts
    )


@each_file_set
def test_every_container_runs_with_least_privilege(files: tuple[Path, ...]) -> None:
    for name, service in load_compose(*files)["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["init"] is True, name
        assert "privileged" not in service
        user = service.get("user") or dockerfile_of(service).last_stage.all("USER")[-1]
        assert user.split(":")[0] not in ("root", "0"), name


@each_file_set
def test_the_logs_of_every_container_are_bounded(files: tuple[Path, ...]) -> None:
    for name, service in load_compose(*files)["services"].items():
        assert service["logging"] == {"driver": "local", "options": {"max-size": "50m", "max-file": "5"}}, name


def test_the_gpu_override_changes_only_devices_and_images() -> None:
    services = load_compose(BASE)["services"]
    with_gpu = load_compose(BASE, GPU)["services"]
    for name in ("train", "service"):
        changed = with_gpu[name]
        (device,) = changed["deploy"]["resources"].pop("reservations")["devices"]
        assert device == {"driver": "nvidia", "count": "1", "capabilities": ["gpu"]}
        assert changed.pop("image") == f"{services[name].pop('image')}-cuda"
        assert changed["environment"].pop("UBERT_DEVICE") == "cuda"
        assert services[name]["environment"].pop("UBERT_DEVICE") == "auto"
    build_arguments = with_gpu["service"]["build"]["args"]
    assert build_arguments.pop("ACCELERATOR") == "cuda"
    with_gpu["service"]["build"]["args"] = list(build_arguments)  # merged into a mapping of names without values
    assert with_gpu == services


@each_dockerfile
def test_an_image_has_a_pinned_base_two_stages_and_a_non_root_user(path: Path) -> None:
    dockerfile = Dockerfile.read(path)
    bases = [base.split()[0] for base in dockerfile.all("FROM")]
    assert len(bases) == 2
    assert set(bases) == {"python:3.11-slim-bookworm"}
    assert dockerfile.last_stage.all("USER") == ["10001:10001"]
    assert len(dockerfile.last_stage.all("HEALTHCHECK")) == 1
    installers = [
        command for command in dockerfile.last_stage.all("RUN") if re.search(r"\b(pip|apt(-get)?)\b", command)
    ]
    assert installers == [], "packages are to be installed in the build stage"
    assert all(isinstance(json.loads(argument), list) for argument in dockerfile.all("ENTRYPOINT")), "not exec form"


@each_dockerfile
def test_every_path_that_a_dockerfile_copies_exists(path: Path) -> None:
    copied = [word for line in Dockerfile.read(path).all("COPY") if "--from" not in line for word in line.split()[:-1]]
    assert copied
    assert [name for name in copied if not (ROOT / name).exists()] == []


@each_dockerfile
def test_an_image_has_exactly_the_commands_of_the_packages_that_it_copies(path: Path) -> None:
    dockerfile = Dockerfile.read(path)
    copied = {word for line in dockerfile.all("COPY") for word in line.split()[:-1]}
    removed = [Path(name).name for line in dockerfile.all("RUN") for name in re.findall(r"&& rm (\S+)", line)]
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    kept = {name for name in scripts if not any(fnmatch(name, pattern) for pattern in removed)}
    assert kept == {name for name, module in scripts.items() if module.split(".")[0].removeprefix("ubert_") in copied}


@each_dockerfile
def test_every_image_disables_the_telemetry_of_onnx_runtime(path: Path) -> None:
    assert Dockerfile.read(path).last_stage.environment["ORT_DISABLE_TELEMETRY"] == "1"


def test_all_images_run_as_the_same_user() -> None:
    """They share a volume."""
    users = {tuple(Dockerfile.read(path).last_stage.all("USER")) for path in DOCKERFILES}
    assert len(users) == 1


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_health_check_asks_over_ipv4_and_ipv6(address: str) -> None:
    if address not in {found[4][0] for found in socket.getaddrinfo("localhost", None)}:
        pytest.skip(f"localhost is not {address} here")

    class Ready(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/readyz" else 404)
            self.end_headers()

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

    with Server((address, 0), Ready) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        result = health_check(str(server.server_address[1]))
        server.shutdown()
    assert result.returncode == 0, result.stderr


def test_the_health_check_fails_if_the_service_does_not_answer() -> None:
    result = health_check("1")
    assert result.returncode == 1
    assert "http://localhost:1/readyz" in result.stderr


def health_check(port: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "docker" / "healthcheck.py"],
        env={**os.environ, "UBERT_PORT": port},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def run_job(reviews: Path, work: Path, *, ubert: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the job's script. ``ubert``: a shell script to run in place of the command ``ubert``."""
    stub = shell_script(work.parent / "bin" / "ubert", ubert)
    path = f"{stub.parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [ROOT / "docker" / "train.sh", reviews, work],
        env={"UBERT_STORE": "redis://redis", **environment, "PATH": path},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("absent", "read the folder .*absent"),
        ("reviews", r"UBERT_REVIEW_FILES=\*\.jsn matches none of the files"),
    ],
)
def test_the_job_refuses_a_missing_folder_and_a_pattern_without_a_match(
    folder: str, message: str, tmp_path: Path
) -> None:
    """An empty folder stands for the default reviews; these two must not pass for one."""
    (tmp_path / "reviews").mkdir()
    (tmp_path / "reviews" / "reviews.json").touch()
    result = run_job(tmp_path / folder, tmp_path / "work", UBERT_REVIEW_FILES="*.jsn")
    assert result.returncode == 2
    assert re.search(message, result.stderr)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("folder", "earlier", "demo", "imports"),
    [
        ("data", None, "", True),
        ("data/next", None, "", True),
        ("data/next", "data", "", False),
        ("data/next", "data/before", "", False),
        ("data/next", "data", "1", True),
    ],
    ids=["first", "first, in a folder", "second", "third", "asked for"],
)
def test_only_the_first_training_uses_the_demos_reviews_unasked(
    folder: str, earlier: str | None, demo: str, imports: bool, tmp_path: Path
) -> None:
    """A folder that was not mounted is empty, too; a model of the demo's reviews must not follow that of real ones."""
    (tmp_path / "reviews").mkdir()
    if earlier is not None:
        report = tmp_path / earlier / "reviews" / "report.json"
        report.parent.mkdir(parents=True)
        report.touch()
    work = tmp_path / folder
    work.parent.mkdir(exist_ok=True)
    shell_script(work.parent / "bin" / "python", f"touch {tmp_path}/imported")
    result = run_job(tmp_path / "reviews", work, UBERT_DEMO=demo)
    assert result.returncode == (0 if imports else 2), result.stderr
    assert (tmp_path / "imported").exists() == imports
    assert ("UBERT_DEMO=1" in result.stderr) != imports


@pytest.mark.parametrize(("status", "hints"), [(2, 1), (137, 0)])
def test_the_job_exits_with_the_status_of_the_failed_step(status: int, hints: int, tmp_path: Path) -> None:
    """After a refusal (2) it also suggests a new folder for other settings; after a kill it does not."""
    report = tmp_path / "work" / "reviews" / "report.json"
    report.parent.mkdir(parents=True)
    report.touch()
    result = run_job(tmp_path / "reviews", tmp_path / "work", ubert=f"exit {status}")
    assert result.returncode == status
    assert result.stderr.count(f"use a new folder such as {tmp_path}/work/next") == hints


@pytest.mark.parametrize("kind", ["random", "time"])
def test_the_job_passes_its_settings_to_every_step_that_takes_them(kind: str, tmp_path: Path) -> None:
    settings = {"seed": "7", "device": "cuda", "preset": "paper", "codec": "fp32", "store": "redis://other:6379/0"}
    reviews, calls = tmp_path / "reviews", tmp_path / "calls"
    reviews.mkdir()
    (reviews / "reviews.json").touch()
    environment = {f"UBERT_{name.upper()}": value for name, value in settings.items()}
    result = run_job(reviews, tmp_path / "work", ubert=f'echo "$@" >> {calls}', **environment, UBERT_SPLIT_KIND=kind)
    assert result.returncode == 0, result.stderr
    steps = dict(line.split(maxsplit=1) for line in calls.read_text(encoding="utf-8").splitlines())
    given = {step: set(settings) & set(re.findall(r"--(\w+)", flags)) for step, flags in steps.items()}
    assert given == {
        "import": set(),
        "split": {"seed"} if kind == "random" else set(),  # a split by time has no seed
        "pretrain": {"preset", "device", "seed"},
        "finetune": {"device", "seed"},
        "evaluate": {"device"},
        "export": set(),
        "precompute": {"store", "codec", "device"},
    }
    for step, names in given.items():
        assert {f"UBERT_{step}_{name}".upper() for name in names} <= flags_of(step)
        assert all(f"--{name} {settings[name]}" in steps[step] for name in names)
