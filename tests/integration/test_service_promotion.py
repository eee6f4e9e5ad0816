"""`ubert-serve-promote`: all replicas answer by the named bundle, or the output lists those that do not."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from support.api_keys import write_keys
from support.app_settings import settings_for
from support.running_app import running, serving
from support.tiny_bundle import Corpus, TinyBundle
from ubert_model.bundle import Bundle
from ubert_model.errors import ConfigError, InputError
from ubert_model.states import MaintenanceStore, open_store
from ubert_service.app import create_app
from ubert_service.commands import promote as promote_command
from ubert_service.serving.opened import OpenedBundle


@dataclass(frozen=True, kw_only=True)
class TwoReplicas:
    """Two replicas with stores of their own: the first can answer by either bundle, the second by ``tiny`` alone."""

    urls: list[str]
    second_store: MaintenanceStore
    key: str

    def promote(self, bundle: str, *further: str) -> Result:
        urls = [argument for url in (*self.urls, *further) for argument in ("--url", url)]
        return CliRunner().invoke(promote_command.app, [bundle, *urls], env={"UBERT_API_KEY": self.key})

    def live(self) -> list[str]:
        headers = {"Authorization": f"Bearer {self.key}"}
        return [
            httpx.get(f"{url}/version", headers=headers, timeout=30, trust_env=False).json()["bundle"]
            for url in self.urls
        ]


@pytest.fixture
def replicas(tiny: TinyBundle, other: Bundle, corpus: Corpus, tmp_path: Path) -> Iterator[TwoReplicas]:
    keys = tmp_path / "keys.toml"
    key = write_keys(keys, operator=["admin"])["operator"]
    settings = settings_for(tiny.bundle, api_keys=keys)
    urls: list[str] = []
    with ExitStack() as stack:
        for stored in ((tiny.bundle, other), (tiny.bundle,)):
            store = stack.enter_context(closing(open_store(f"lmdb:{tmp_path}/store-{len(urls)}")))
            for bundle in stored:
                corpus.write(store, bundle)
            live, shadow = (OpenedBundle.open(settings_for(bundle)) for bundle in (tiny.bundle, other))
            client = stack.enter_context(running(create_app(settings, live, store, shadow=shadow)))
            urls.append(str(client.base_url))
        yield TwoReplicas(urls=urls, second_store=store, key=key)


def test_all_replicas_are_promoted_and_back_and_a_repetition_changes_nothing(
    replicas: TwoReplicas, tiny: TinyBundle, other: Bundle, corpus: Corpus
) -> None:
    corpus.write(replicas.second_store, other)
    for bundle in (other, other, tiny.bundle):
        bundle_id = bundle.manifest.bundle_id
        done = replicas.promote(bundle_id[:10])
        assert done.exit_code == 0, done.output
        assert done.stdout.count(f"live {bundle_id[:12]}") == 2
        assert replicas.live() == [bundle_id] * 2


def test_a_replica_that_is_not_promoted_is_named_and_a_repetition_promotes_it(
    replicas: TwoReplicas, tiny: TinyBundle, other: Bundle, corpus: Corpus
) -> None:
    old, new = tiny.bundle.manifest.bundle_id, other.manifest.bundle_id
    stopped = replicas.promote(new)
    assert stopped.exit_code == 1
    assert replicas.live() == [new, old]
    assert f"{replicas.urls[1]}  was not promoted: 503" in stopped.stderr
    assert "1 of 2 do not run" in stopped.stderr
    assert [line.split()[2].rstrip(",") for line in stopped.stdout.splitlines()] == [new[:12], old[:12]]
    corpus.write(replicas.second_store, other)
    assert replicas.promote(new).exit_code == 0
    assert replicas.live() == [new, new]


def test_nothing_changes_if_a_replica_is_unreachable_or_has_not_loaded_the_bundle(
    replicas: TwoReplicas, tiny: TinyBundle, other: Bundle
) -> None:
    new = other.manifest.bundle_id
    with serving(settings_for(tiny.bundle), replicas.second_store) as lacking:
        refusals = [replicas.promote(new, str(lacking.base_url)), replicas.promote("unknown")]
    refusals.append(replicas.promote(new, str(lacking.base_url)))  # it is no longer running
    for refused in refusals:
        assert isinstance(refused.exception, InputError), refused.output
        assert "nothing was changed" in str(refused.exception)
    assert new not in replicas.live()


def test_a_refused_key_is_reported_with_the_setting_that_takes_one(replicas: TwoReplicas) -> None:
    refused = replace(replicas, key="wrong").promote("any")
    assert "a key of scope admin is given by UBERT_API_KEY or --api-key" in str(refused.exception)


def test_an_address_with_a_password_is_refused_without_showing_it(replicas: TwoReplicas, tiny: TinyBundle) -> None:
    refused = replicas.promote(tiny.bundle.manifest.bundle_id, replicas.urls[0].replace("://", "://operator:secret@"))
    assert isinstance(refused.exception, ConfigError)
    assert "leave out user and password" in str(refused.exception)
    assert "secret" not in refused.output + str(refused.exception)
