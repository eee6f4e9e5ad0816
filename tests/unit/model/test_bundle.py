"""A bundle is whole or refused: every file is checked, the manifest itself too, and a failed export changes nothing."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from support.codebooks import random_codebooks
from support.tiny_bundle import BIAS, INTERVALS, random_text_reader
from support.tiny_tokenizer import tiny_tokenizer_json
from ubert_model.bundle import (
    CODEBOOKS,
    DEVIATIONS,
    ENCODER_GRAPH,
    FORMAT_VERSION,
    IDENTITIES,
    MANIFEST,
    METRICS,
    TEXT_READER,
    TOKENIZER,
    WEIGHTS,
    Bundle,
    Manifest,
    write_bundle,
)
from ubert_model.config import preset
from ubert_model.errors import BundleError, ConfigError, ForeignStateError
from ubert_model.ids import Identities, IdTable
from ubert_model.rating.deviations import ElsewhereRatings, SideDeviations, UsualDeviations
from ubert_model.review import ReviewEntry, Side
from ubert_model.states import codec_names

DRAFT = Manifest(
    config=replace(preset("tiny"), pretrain_max_length=12),
    state_dim=16,
    encoder_digest="e" * 64,
    bias=BIAS,
    blend_weight=0.25,
    intervals=INTERVALS,
    origin={"source": "unit test", "seed": 0},
)
IDS = Identities(IdTable(["u"]), IdTable(["i"]), IdTable(["Music"]), {"i": "Music"}, "Music")


def fill(directory: Path, weights: bytes = b"weights") -> None:
    (directory / WEIGHTS).write_bytes(weights)
    (directory / ENCODER_GRAPH).write_bytes(b"graph")
    (directory / TOKENIZER).write_text(tiny_tokenizer_json(), encoding="utf-8")
    (directory / IDENTITIES).write_text(json.dumps(IDS.to_json()), encoding="utf-8")
    (directory / METRICS).write_text('{"mse": 0.75}', encoding="utf-8")
    (directory / TEXT_READER).write_bytes(b"reader")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "bundle", DRAFT, fill)


def edit_manifest(bundle: Bundle, edit: Callable[[dict[str, Any]], object]) -> None:
    path = bundle.path / MANIFEST
    values = json.loads(path.read_text(encoding="utf-8"))
    edit(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def test_a_loaded_bundle_equals_the_written_one(bundle: Bundle) -> None:
    loaded = Bundle.load(bundle.path)
    assert loaded.manifest == bundle.manifest
    assert replace(loaded.manifest, bundle_id="", files={}) == DRAFT
    assert set(loaded.manifest.files) == {WEIGHTS, ENCODER_GRAPH, TOKENIZER, IDENTITIES, METRICS, TEXT_READER}
    assert loaded.file(WEIGHTS).read_bytes() == b"weights"
    assert loaded.metrics() == {"mse": 0.75}
    assert loaded.identities.to_json() == Identities.from_json(IDS.to_json()).to_json()


def test_a_bundles_tokenizer_cuts_texts_to_the_max_length_of_its_config(bundle: Bundle) -> None:
    assert bundle.tokenizer().max_length == preset("tiny").max_length
    assert len(bundle.tokenizer().encode(["good " * 99])[0]) == preset("tiny").max_length


def test_bundles_have_the_same_id_only_if_their_content_is_the_same(tmp_path: Path, bundle: Bundle) -> None:
    again = write_bundle(tmp_path / "again", DRAFT, fill)
    other_weights = write_bundle(tmp_path / "other", DRAFT, lambda directory: fill(directory, b"others"))
    other_blend = write_bundle(tmp_path / "blend", replace(DRAFT, blend_weight=0.5), fill)
    assert again.manifest.bundle_id == bundle.manifest.bundle_id
    assert len({one.manifest.bundle_id for one in (bundle, other_weights, other_blend)}) == 3


@pytest.mark.parametrize("name", [WEIGHTS, ENCODER_GRAPH, TOKENIZER, IDENTITIES, METRICS, TEXT_READER])
def test_a_changed_file_is_refused_by_name(bundle: Bundle, name: str) -> None:
    content = bytearray(bundle.file(name).read_bytes())
    content[len(content) // 2] ^= 1
    bundle.file(name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} differs from its checksum"):
        Bundle.load(bundle.path)


def test_every_file_of_a_bundle_is_readable_by_every_user(tmp_path: Path) -> None:
    def fill_privately(directory: Path) -> None:
        fill(directory)
        (directory / WEIGHTS).chmod(0o600)

    umask = os.umask(0o077)
    try:
        bundle = write_bundle(tmp_path / "bundle", DRAFT, fill_privately)
    finally:
        os.umask(umask)
    assert {file.stat().st_mode & 0o777 for file in bundle.path.iterdir()} == {0o644}
    assert bundle.path.stat().st_mode & 0o777 == 0o755


def test_an_unreadable_file_is_refused_by_name(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))  # chmod would not stop root

    monkeypatch.setattr("ubert_model.bundle.file_digest", refuse)
    with pytest.raises(BundleError, match=r"cannot be read \(Permission denied\); make it readable"):
        Bundle.load(bundle.path)


def test_a_truncated_file_is_refused_by_name(bundle: Bundle) -> None:
    bundle.file(WEIGHTS).write_bytes(b"weight")
    with pytest.raises(BundleError, match=WEIGHTS):
        Bundle.load(bundle.path)


def test_a_missing_file_is_refused_by_name(bundle: Bundle) -> None:
    bundle.file(ENCODER_GRAPH).unlink()
    with pytest.raises(BundleError, match=f"{ENCODER_GRAPH} is missing"):
        Bundle.load(bundle.path)


TAMPERING: dict[str, Callable[[dict[str, Any]], object]] = {
    "blend weight": lambda values: values.update(blend_weight=1.0),
    "bias": lambda values: values["bias"].update(mean=3.0),
    "config": lambda values: values["config"].update(max_length=8),
    "origin": lambda values: values["origin"].update(seed=1),
    "file list": lambda values: values["files"].pop(METRICS),
    "identifier": lambda values: values.update(bundle_id="0" * 16),
}


@pytest.mark.parametrize("edit", TAMPERING.values(), ids=TAMPERING)
def test_a_manifest_changed_after_export_is_refused(bundle: Bundle, edit: Callable[[dict[str, Any]], object]) -> None:
    edit_manifest(bundle, edit)
    with pytest.raises(BundleError, match="changed after export"):
        Bundle.load(bundle.path)


MALFORMED: dict[str, Callable[[dict[str, Any]], object]] = {
    "lacks its files": lambda values: values.pop("files"),
    "has files without checksums": lambda values: values.update(files=[WEIGHTS]),
    "lacks a field": lambda values: values.pop("bias"),
    "has a field too many": lambda values: values.update(colour="red"),
    "has an unknown option": lambda values: values["config"].update(colour="red"),
    "has a word for its options": lambda values: values.update(config="minilm"),
    "has a number too large for a float": lambda values: values["config"]["scale"].update(lowest=-(10**400)),
    "has an impossible option": lambda values: values["config"].update(max_length=1),
}


@pytest.mark.parametrize("edit", MALFORMED.values(), ids=MALFORMED)
def test_a_manifest_of_another_shape_is_refused(bundle: Bundle, edit: Callable[[dict[str, Any]], object]) -> None:
    edit_manifest(bundle, edit)
    with pytest.raises(BundleError, match=rf"{MANIFEST}.*export the bundle again"):
        Bundle.load(bundle.path)


@pytest.mark.parametrize("version", [FORMAT_VERSION - 1, FORMAT_VERSION + 1, str(FORMAT_VERSION), None])
def test_another_format_version_is_refused_with_both_versions(bundle: Bundle, version: object) -> None:
    edit_manifest(bundle, lambda values: values.update(format=version))
    with pytest.raises(BundleError, match=f"format {version!r}.*reads format {FORMAT_VERSION}"):
        Bundle.load(bundle.path)


def test_a_file_without_a_checksum_is_never_read(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", DRAFT, lambda directory: (directory / METRICS).write_text("{}"))
    (bundle.path / WEIGHTS).write_bytes(b"unchecked")
    with pytest.raises(BundleError, match=f"names no {WEIGHTS}; export the bundle again"):
        Bundle.load(bundle.path).file(WEIGHTS)


@pytest.mark.parametrize("content", ["{", "[]", '"manifest"', "[" * 100_000])
def test_a_manifest_that_is_no_json_object_is_refused(bundle: Bundle, content: str) -> None:
    (bundle.path / MANIFEST).write_text(content, encoding="utf-8")
    with pytest.raises(BundleError, match=rf"{MANIFEST}.*export the bundle again"):
        Bundle.load(bundle.path)


def test_a_manifest_that_cannot_be_read_is_refused(bundle: Bundle) -> None:
    (bundle.path / MANIFEST).unlink()
    (bundle.path / MANIFEST).mkdir()  # a mode would not stop root
    with pytest.raises(BundleError, match=rf"{MANIFEST}.*Is a directory"):
        Bundle.load(bundle.path)


def test_a_directory_without_a_manifest_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(BundleError, match=f"holds no {MANIFEST}"):
            Bundle.load(path)


@pytest.mark.parametrize("interruption", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_export_leaves_the_previous_bundle_and_nothing_else(
    bundle: Bundle, interruption: type[BaseException]
) -> None:
    def fill_half(directory: Path) -> None:
        (directory / WEIGHTS).write_bytes(b"half")
        raise interruption

    with pytest.raises(interruption):
        write_bundle(bundle.path, DRAFT, fill_half)
    assert Bundle.load(bundle.path).manifest == bundle.manifest
    assert [*bundle.path.parent.iterdir()] == [bundle.path]


@pytest.mark.parametrize("interruption", [OSError, KeyboardInterrupt])
def test_a_bundle_that_cannot_be_moved_into_place_leaves_the_previous_one_there(
    bundle: Bundle, interruption: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.replace

    def refuse_the_new(source: Path, target: Path) -> None:
        if target == bundle.path and source.name == "new":
            raise interruption
        rename(source, target)

    monkeypatch.setattr(os, "replace", refuse_the_new)
    with pytest.raises(interruption):
        write_bundle(bundle.path, DRAFT, fill)
    assert Bundle.load(bundle.path).manifest == bundle.manifest
    assert [*bundle.path.parent.iterdir()] == [bundle.path]


def test_a_new_bundle_replaces_the_old_one_whole(bundle: Bundle) -> None:
    replaced = write_bundle(bundle.path, DRAFT, lambda directory: (directory / "only").touch())
    assert replaced.manifest.bundle_id != bundle.manifest.bundle_id
    assert sorted(file.name for file in bundle.path.iterdir()) == [MANIFEST, "only"]
    assert [*bundle.path.parent.iterdir()] == [bundle.path]


def test_a_bundle_is_written_into_an_empty_directory_but_never_over_other_files(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new/folder/bundle"):
        assert write_bundle(tmp_path / name, DRAFT, fill).manifest.bundle_id
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("years of work", encoding="utf-8")
    for name in ("taken", "taken/thesis.tex"):
        with pytest.raises(BundleError, match="is not a bundle"):
            write_bundle(tmp_path / name, DRAFT, fill)
    assert (tmp_path / "taken" / "thesis.tex").read_text(encoding="utf-8") == "years of work"


def test_bundles_with_the_same_encoder_and_text_reader_share_a_namespace_and_no_others_do() -> None:
    with_reader = replace(DRAFT, files={TEXT_READER: "a" * 64})
    blended = replace(with_reader, blend_weight=1.0)
    assert with_reader.namespace("fp16") == blended.namespace("fp16")
    versions = {
        with_reader.namespace("fp16").version,
        with_reader.namespace("int8").version,
        replace(with_reader, encoder_digest="f" * 64).namespace("fp16").version,
        replace(with_reader, files={TEXT_READER: "b" * 64}).namespace("fp16").version,
    }
    assert len(versions) == 4
    assert all(set(version) <= set("0123456789abcdef") for version in versions)


def test_a_namespace_describes_its_states() -> None:
    namespace = replace(DRAFT, state_dim=24, files={TEXT_READER: "a" * 64}).namespace("int8")
    described = (namespace.encoder_digest, namespace.codec, namespace.state_dim, namespace.max_length)
    assert described == (DRAFT.encoder_digest, "int8", 24, DRAFT.config.max_length)


def test_a_bundle_without_a_text_reader_has_no_namespace() -> None:
    with pytest.raises(ConfigError, match=f"has no {TEXT_READER}: export it again"):
        replace(DRAFT, files={}).namespace("int8")


def test_usual_deviations_are_loaded_with_the_worths_and_means_of_the_bias_model(tmp_path: Path) -> None:
    user, item = BIAS.user, BIAS.item
    by_item = SideDeviations(Side.USER, user.worth, user.mean, IDS.items, np.array([[0.0, 0.0], [0.5, 0.2]]))
    by_user = SideDeviations(Side.ITEM, item.worth, item.mean, IDS.users, np.array([[0.0, 0.0], [0.1, 0.7]]))
    written = UsualDeviations(by_item, by_user, ElsewhereRatings(IDS.users, np.zeros((2, 3))))

    def with_deviations(directory: Path) -> None:
        fill(directory)
        written.save(directory / DEVIATIONS)

    read = write_bundle(tmp_path / "bundle", DRAFT, with_deviations).deviations
    reviews = [
        ReviewEntry(review_id="r", user=reviewer, item=thing, rating=4.0, timestamp=0, rows=1, surplus=0.75)
        for reviewer, thing in (("u", "i"), ("nobody", "nothing"))
    ]
    assert read.user.above_usual(reviews) == by_item.above_usual(reviews)
    assert read.item.above_usual(reviews) == by_user.above_usual(reviews)


def test_a_bundles_text_reader_is_loaded_with_its_tokenizer(tmp_path: Path) -> None:
    reader = random_text_reader(tiny_tokenizer_json())

    def with_reader(directory: Path) -> None:
        fill(directory)
        reader.save(directory / TEXT_READER)

    read = write_bundle(tmp_path / "bundle", DRAFT, with_reader).text_reader
    text = "A good guitar. " * 40  # more than the encoder reads
    assert read.surplus(text, "i", 4.0) == reader.surplus(text, "i", 4.0) != 0


def with_codebooks(directory: Path, seed: int = 0) -> None:
    fill(directory)
    random_codebooks(DRAFT.state_dim, seed).save(directory / CODEBOOKS)


def test_another_codebook_changes_the_namespaces_of_the_product_codes_alone(tmp_path: Path) -> None:
    first, same, other = (
        write_bundle(tmp_path / name, DRAFT, partial(with_codebooks, seed=seed))
        for name, seed in (("first", 0), ("same", 0), ("other", 1))
    )
    for codec in codec_names():
        assert first.codec(codec).namespace == same.codec(codec).namespace
        shared = first.codec(codec).namespace == other.codec(codec).namespace
        assert shared == (not codec.startswith("pq")), codec


def test_states_of_another_codebook_are_refused(tmp_path: Path) -> None:
    states = np.random.default_rng(0).standard_normal((5, DRAFT.state_dim)).astype(np.float32)
    first = write_bundle(tmp_path / "first", DRAFT, with_codebooks)
    other = write_bundle(tmp_path / "other", DRAFT, lambda directory: with_codebooks(directory, seed=1))
    payload = first.codec("pq1").encode(states)
    assert first.codec("pq1").decode(payload).shape == states.shape
    with pytest.raises(ForeignStateError, match="codebook"):
        other.codec("pq1").decode(payload)


def test_a_product_code_of_a_bundle_without_codebooks_is_refused_with_the_remedy(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match=r"'pq1/pool2'.*export it again"):
        bundle.codec("pq1/pool2")
    assert bundle.codec("int4").namespace.codec == "int4"  # which the remedy names


@pytest.mark.parametrize("content", [b"junk", save({"pq1.mean": np.zeros(3)})])
def test_a_file_that_holds_no_codebooks_is_refused(tmp_path: Path, content: bytes) -> None:
    def other(directory: Path) -> None:
        fill(directory)
        (directory / CODEBOOKS).write_bytes(content)

    with pytest.raises(BundleError, match=r"no codebooks.*: fine-tune again .* export the bundle"):
        write_bundle(tmp_path / "bundle", DRAFT, other).codec("pq1")
