"""The bundle: one directory with everything that serving needs, verified by checksum before any of it is used."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from ubert_model.config import ModelConfig
from ubert_model.errors import BundleError
from ubert_model.ids import Identities
from ubert_model.rating.blend import BiasModel, Blend
from ubert_model.rating.deviations import UsualDeviations
from ubert_model.rating.intervals import RatingIntervals
from ubert_model.rating.text_reader import TextReader
from ubert_model.running.atomic import replacing_directory
from ubert_model.states.codec import StateCodec, is_trained, make_codec
from ubert_model.states.product_code import Codebooks
from ubert_model.states.store import Namespace
from ubert_model.tokenizer import ReviewTokenizer
from ubert_model.validation import require

FORMAT_VERSION = 8
MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
ENCODER_CONFIG = "encoder_config.json"
TOKENIZER = "tokenizer.json"
IDENTITIES = "identities.json"
ENCODER_GRAPH = "encoder.onnx"
SCORER_GRAPH = "scorer.onnx"
EXPLAINER_GRAPH = "explainer.onnx"
METRICS = "metrics.json"
CODEBOOKS = "codebooks.safetensors"
DEVIATIONS = "deviations.safetensors"
TEXT_READER = "text_reader.safetensors"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The metadata of a bundle.

    ``encoder_digest`` covers everything that determines a review's states before the codec: the encoder's weights, the
    tokenizer, ``max_length`` and ``state_dim``. ``bundle_id`` covers every file. ``blend_weight`` is the network's
    share of the rating and ``intervals`` how far a rating may be off, both fitted on validation pairs. ``origin``
    records how the bundle was made.
    """

    config: ModelConfig
    state_dim: int
    encoder_digest: str
    bias: BiasModel
    blend_weight: float
    intervals: RatingIntervals
    bundle_id: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain values."""
        parts = {"config": self.config.to_json(), "bias": self.bias.to_json(), "intervals": self.intervals.to_json()}
        return {"format": FORMAT_VERSION, **asdict(self), **parts}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_json`. Raises ``BundleError`` on another format version or shape."""
        if not isinstance(values, Mapping) or not isinstance(values.get("files"), Mapping):
            raise BundleError(f"{MANIFEST} is not a manifest; export the bundle again")
        if values.get("format") != FORMAT_VERSION:
            raise BundleError(
                f"bundle format {values.get('format')!r}: this u-bert reads format {FORMAT_VERSION}; "
                "fine-tune and export again with this version"
            )
        try:
            rest = {name: value for name, value in values.items() if name != "format"}
            config = ModelConfig.from_json(rest.pop("config"))
            bias = BiasModel.from_json(rest.pop("bias"))
            intervals = RatingIntervals.from_json(rest.pop("intervals"))
            return cls(config=config, bias=bias, intervals=intervals, **rest)
        except (AttributeError, KeyError, OverflowError, TypeError) as error:
            raise BundleError(f"{MANIFEST}: {error}; export the bundle again") from error

    @property
    def blend(self) -> Blend:
        """From the network's outputs to ratings."""
        return Blend.of(self.config, self.bias, self.blend_weight)

    def namespace(self, codec: str) -> Namespace:
        """The namespace of this bundle's reviews under a codec. Bundles with the same encoder and text reader share it;
        under a product code they must have the same codebooks, too.

        Raises ``ConfigError`` for an unknown codec, and for a product code if the bundle has no codebooks.
        """
        require(TEXT_READER in self.files, "bundle", self.bundle_id, f"it has no {TEXT_READER}: export it again")
        parts = [self.encoder_digest, self.files[TEXT_READER], codec]
        if is_trained(codec):
            require(
                CODEBOOKS in self.files, "codec", codec, f"the bundle has no {CODEBOOKS}: export it again, or use int4"
            )
            parts.append(self.files[CODEBOOKS])
        version = hashlib.sha256("/".join(parts).encode()).hexdigest()[:16]
        return Namespace(
            version=version,
            encoder_digest=self.encoder_digest,
            codec=codec,
            state_dim=self.state_dim,
            max_length=self.config.max_length,
        )


class Bundle:
    """A bundle on disk, opened for reading."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def load(cls, path: Path) -> Self:
        """Open a bundle and verify every checksum.

        Raises ``BundleError`` if the directory is not a bundle, or if a file is missing, unreadable or changed.
        """
        manifest_path = path / MANIFEST
        try:
            written = json.loads(manifest_path.read_text(encoding="utf-8"))
            manifest = Manifest.from_json(written)
        except FileNotFoundError as error:
            raise BundleError(f"{path} holds no {MANIFEST}; give the directory that `ubert export` wrote") from error
        except (OSError, ValueError, RecursionError) as error:
            raise BundleError(f"{manifest_path}: {error}; export the bundle again") from error
        for name, expected in manifest.files.items():
            _check_file(path / name, expected)
        if manifest.bundle_id != _bundle_id(written):
            raise BundleError(f"{manifest_path} was changed after export; export the bundle again")
        return cls(path, manifest)

    def file(self, name: str) -> Path:
        """Path of one of the bundle's files. Raises ``BundleError`` for one that has no checksum."""
        if name not in self.manifest.files:
            raise BundleError(f"{self.path / MANIFEST} names no {name}; export the bundle again")
        return self.path / name

    @cached_property
    def identities(self) -> Identities:
        """The users, items and domains seen in training."""
        return Identities.from_json(json.loads(self.file(IDENTITIES).read_text(encoding="utf-8")))

    @cached_property
    def deviations(self) -> UsualDeviations:
        """The ratings that are usual for each of those users and items."""
        bias, identities = self.manifest.bias, self.identities
        return UsualDeviations.load(
            self.file(DEVIATIONS), bias.user, bias.item, user_ids=identities.users, item_ids=identities.items
        )

    def tokenizer(self) -> ReviewTokenizer:
        """A tokenizer that truncates at the length that states are computed with."""
        return ReviewTokenizer(self._tokenizer_json, self.manifest.config.max_length)

    @cached_property
    def _tokenizer_json(self) -> str:
        return self.file(TOKENIZER).read_text(encoding="utf-8")

    @cached_property
    def text_reader(self) -> TextReader:
        """Reads what a text says beyond its stars."""
        return TextReader.load(self.file(TEXT_READER), self._tokenizer_json)

    def codec(self, name: str) -> StateCodec:
        """The codec of ``manifest.namespace(name)``. Raises as that does."""
        return make_codec(self.manifest.namespace(name), self._codebooks if is_trained(name) else None)

    @cached_property
    def _codebooks(self) -> Codebooks:
        return Codebooks.load(self.file(CODEBOOKS))

    def metrics(self) -> Any:
        """The results of the evaluation before export, as plain values."""
        return json.loads(self.file(METRICS).read_text(encoding="utf-8"))


def write_bundle(path: Path, manifest: Manifest, write_files: Callable[[Path], object]) -> Bundle:
    """Write a bundle: ``write_files`` fills a staging directory, which is checksummed and moved to ``path``.

    A bundle that is already at ``path`` is replaced. Raises ``BundleError`` if ``path`` is anything else, and as
    ``replacing_directory`` does.
    """
    if path.exists() and not (path / MANIFEST).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise BundleError(f"{path} exists and is not a bundle; give an empty or a new directory")
    with replacing_directory(path) as staging:
        write_files(staging)
        digests = {file.name: file_digest(file) for file in sorted(staging.iterdir())}
        named = replace(manifest, files=digests)
        complete = replace(named, bundle_id=_bundle_id(named.to_json()))
        (staging / MANIFEST).write_text(json.dumps(complete.to_json(), indent=2) + "\n", encoding="utf-8")
        for file in staging.iterdir():
            # Some writers create private files, and the service often runs as a different user than training.
            file.chmod(0o644)
    return Bundle.load(path)


def _check_file(path: Path, expected: str) -> None:
    if not path.is_file():
        raise BundleError(f"{path} is missing; copy the whole bundle, or export it again")
    try:
        found = file_digest(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}); make it readable for this user") from error
    if found != expected:
        raise BundleError(f"{path} differs from its checksum; copy the bundle again, or export it again")


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bundle_id(manifest: Mapping[str, Any]) -> str:
    """Digest of the written manifest without its ``bundle_id``; the checksums in it make that a digest of every file.

    Takes the manifest as written, not as parsed: a field renamed since then still counts under its old name.
    """
    content = {**manifest, "bundle_id": ""}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
