"""`ubert-serve-promote`: all replicas answer by the bundle that is named, or it is told which do not."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from click.testing import Result
from typer.testing import CliRunner

from support.app_settings import settings_for
from support.running_app import running, serving
from support.tiny_bundle import Corpus, TinyBundle
from ubert_model.bundle import Bundle
from ubert_model.errors import ConfigError, InputError
from ubert_model.states import StateStore, open_store
from ubert_service.access.keys import new_key
from ubert_service.app import create_app
from ubert_service.commands import promote as promote_command
from ubert_service.serving.served import ServedBundle


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two replicas with stores of their own: the first can answer by either bundle, the second by ``tiny`` alone."""

    urls: list[str]
    second_store: StateStore
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
def pair(tiny: TinyBundle, other: Bundle, corpus: Corpus, tmp_path: Path) -> Iterator[Pair]:
    key, table = new_key("operator", ["admin"])
    keys = tmp_path / "keys.toml"
    keys.write_text(table, encoding="utf-8")
    settings = settings_for(tiny.bundle, api_keys=keys)
    urls = []
    with ExitStack() as stack:
        for held in ((tiny.bundle, other), (tiny.bundle,)):
            store = stack.enter_context(closing(open_store(f"lmdb:{tmp_path}/store-{len(urls)}")))
            for bundle in held:
                corpus.write(store, bundle)
            live, shadow = (ServedBundle.load(settings_for(bundle), store) for bundle in (tiny.bundle, other))
            client = stack.enter_context(running(create_app(settings, live, shadow=shadow)))
            urls.append(str(client.base_url))
        yield Pair(urls=urls, second_store=store, key=key)


def test_all_are_promoted_and_taken_back_and_a_repetition_changes_nothing(
    pair: Pair, tiny: TinyBundle, other: Bundle, corpus: Corpus
) -> None:
    corpus.write(pair.second_store, other)
    for bundle in (other, other, tiny.bundle):
        wanted = bundle.manifest.bundle_id
        done = pair.promote(wanted[:10])
        assert done.exit_code == 0, done.output
        assert done.stdout.count(f"live {wanted[:12]}") == 2
        assert pair.live() == [wanted] * 2


def test_who_could_not_be_promoted_is_told_and_the_same_command_ends_it_later(
    pair: Pair, tiny: TinyBundle, other: Bundle, corpus: Corpus
) -> None:
    old, new = tiny.bundle.manifest.bundle_id, other.manifest.bundle_id
    stopped = pair.promote(new)
    assert stopped.exit_code == 1
    assert pair.live() == [new, old]
    assert f"{pair.urls[1]}  was not promoted: 503" in stopped.stderr
    assert "1 of 2 do not run" in stopped.stderr
    assert [line.split()[2].rstrip(",") for line in stopped.stdout.splitlines()] == [new[:12], old[:12]]
    corpus.write(pair.second_store, other)
    assert pair.promote(new).exit_code == 0
    assert pair.live() == [new, new]


def test_nothing_changes_where_a_replica_is_away_or_lacks_the_bundle(
    pair: Pair, tiny: TinyBundle, other: Bundle
) -> None:
    new = other.manifest.bundle_id
    with serving(settings_for(tiny.bundle), pair.second_store) as lacking:
        refusals = [pair.promote(new, str(lacking.base_url)), pair.promote("of nobody")]
    refusals.append(pair.promote(new, str(lacking.base_url)))  # it has ended
    for refused in refusals:
        assert isinstance(refused.exception, InputError), refused.output
        assert "nothing was changed" in str(refused.exception)
    assert new not in pair.live()


def test_an_address_with_a_password_is_refused_without_showing_it(pair: Pair, tiny: TinyBundle) -> None:
    refused = pair.promote(tiny.bundle.manifest.bundle_id, pair.urls[0].replace("://", "://operator:secret@"))
    assert isinstance(refused.exception, ConfigError)
    assert "leave out user and password" in str(refused.exception)
    assert "secret" not in refused.output + str(refused.exception)
