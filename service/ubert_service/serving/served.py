"""A bundle made ready to serve: loaded, its graph on a device, its states looked up in a store."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

from ubert_model.bundle import ENCODER_GRAPH, EXPLAINER_GRAPH, Bundle
from ubert_model.errors import DeviceUnavailableError, StateError, StoreError
from ubert_model.ids import Identities
from ubert_model.states import Namespace, StateCodec, StateStore, require_codec
from ubert_model.tokenizer import ReviewTokenizer
from ubert_service.explaining.explain import Explainer
from ubert_service.explaining.explainer_graph import OnnxExplainer, OutputParting
from ubert_service.explaining.review_texts import ReviewTexts
from ubert_service.observability.observed import ObservedEncoder, ObservedParting, ObservedRuntime, ObservedStore
from ubert_service.reading.histories import BroughtReviews
from ubert_service.resident.keeping import ResidentsKeeper
from ubert_service.resident.namespaces import absence_of
from ubert_service.resident.residents import Residents
from ubert_service.reviews.candidate_sets import CandidateSets
from ubert_service.reviews.directory import EntityDirectory
from ubert_service.reviews.listing import ReviewListing
from ubert_service.reviews.review_book import ReviewBook
from ubert_service.scoring.bringing import BroughtText, bring
from ubert_service.scoring.encoding import OnnxReviewEncoder, ReviewEncoding
from ubert_service.scoring.engine import ScoringEngine
from ubert_service.scoring.runtime import ScoringRuntime
from ubert_service.scoring.runtime_choice import open_runtime
from ubert_service.settings import Settings
from ubert_service.telemetry import SILENT, ResidentsTelemetry, Telemetry


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """Why the service is not ready: what was checked, what was found, and what to do about it."""

    check: str
    found: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class ServedBundle:
    """One bundle under one codec. What names it to callers is ``bundle_id``."""

    bundle: Bundle
    identities: Identities
    codec: StateCodec
    store: StateStore
    runtime: ScoringRuntime
    encoder: ReviewEncoding
    tokenizer: ReviewTokenizer
    parting: OutputParting
    resident_bytes: int
    resident_lag_s: float
    warm_s: float
    keeps_texts: bool
    telemetry: ResidentsTelemetry = SILENT

    @classmethod
    def load(cls, settings: Settings, store: StateStore) -> Self:
        """Read the bundle and open its graphs. Does not touch the store, which may still be away.

        Raises ``BundleError``, ``ConfigError`` for a codec that is unknown or that the bundle has no codebook for, and
        ``DeviceUnavailableError``.
        """
        require_codec(settings.codec)
        bundle = Bundle.load(settings.bundle)
        tokenizer = bundle.tokenizer()
        encoder = OnnxReviewEncoder(
            bundle.file(ENCODER_GRAPH),
            tokenizer,
            state_dim=bundle.manifest.state_dim,
            tokens_a_row=bundle.manifest.config.tokens_a_row,
            device=settings.device,
            threads=settings.threads,
        )
        return cls(
            bundle=bundle,
            identities=bundle.identities,
            codec=bundle.codec(settings.codec),
            store=store,
            runtime=open_runtime(settings, bundle, encoder),
            encoder=encoder,
            tokenizer=tokenizer,
            parting=OnnxExplainer(bundle.file(EXPLAINER_GRAPH), device=settings.device, threads=settings.threads),
            resident_bytes=settings.resident_bytes,
            resident_lag_s=settings.resident_lag,
            warm_s=settings.warm_seconds,
            keeps_texts=settings.texts,
        )

    @property
    def namespace(self) -> Namespace:
        """Where the store keeps the states that are served."""
        return self.codec.namespace

    @cached_property
    def engine(self) -> ScoringEngine:
        """Rates pairs."""
        return ScoringEngine(
            manifest=self.bundle.manifest,
            identities=self.identities,
            residents=self.residents,
            runtime=self.runtime,
        )

    @cached_property
    def explainer(self) -> Explainer:
        """Explains ratings."""
        return Explainer(
            manifest=self.bundle.manifest,
            engine=self.engine,
            residents=self.residents,
            parting=self.parting,
            texts=self.texts,
        )

    @cached_property
    def residents(self) -> Residents:
        """Reads the store, and keeps what it has read."""
        return Residents(
            store=self.store,
            codec=self.codec,
            config=self.bundle.manifest.config,
            usual=self.bundle.deviations,
            bias=self.bundle.manifest.bias,
            max_bytes=self.resident_bytes,
            max_lag_s=self.resident_lag_s,
            telemetry=self.telemetry,
        )

    @cached_property
    def reviews(self) -> ReviewBook:
        """Writes and removes reviews."""
        return ReviewBook(
            scale=self.bundle.manifest.config.scale,
            codec=self.codec,
            store=self.store,
            residents=self.residents,
            encoder=self.encoder,
            texts=self.texts,
        )

    def bring(self, user: str, texts: Sequence[BroughtText]) -> BroughtReviews:
        """Encode what a request brings along for its user. Raises as :func:`bringing.bring` does."""
        manifest = self.bundle.manifest
        return bring(texts, user=user, encoder=self.encoder, scale=manifest.config.scale, mean=manifest.bias.mean)

    @cached_property
    def texts(self) -> ReviewTexts:
        """The texts of reviews, if they are kept."""
        return ReviewTexts(
            store=self.store,
            codec=self.codec,
            tokenizer=self.tokenizer,
            tokens_a_row=self.bundle.manifest.config.tokens_a_row,
            keeps=self.keeps_texts,
        )

    @cached_property
    def candidate_sets(self) -> CandidateSets:
        """The stored sets of items to rank."""
        return CandidateSets(self.store)

    @cached_property
    def listing(self) -> ReviewListing:
        """What is known of a user or an item."""
        return ReviewListing(identities=self.identities, namespace=self.namespace, store=self.store)

    @cached_property
    def directory(self) -> EntityDirectory:
        """Finds users and items by the beginning of their identifier."""
        return EntityDirectory(identities=self.identities, namespace=self.namespace, store=self.store)

    def reporting_to(self, telemetry: Telemetry) -> Self:
        """The same bundle, whose store and graphs report what each call took."""
        return replace(
            self,
            store=ObservedStore(self.store, telemetry),
            runtime=ObservedRuntime(self.runtime, telemetry),
            encoder=ObservedEncoder(self.encoder, telemetry),
            parting=ObservedParting(self.parting, telemetry),
            telemetry=telemetry,
        )

    @property
    def bundle_id(self) -> str:
        """Digest over everything in the bundle."""
        return self.bundle.manifest.bundle_id

    @property
    def coverage(self) -> float:
        """What the intervals of its ratings promise."""
        return self.bundle.manifest.intervals.coverage

    @cached_property
    def keeper(self) -> ResidentsKeeper:
        """Warms the residents and keeps them true, once entered."""
        return ResidentsKeeper(
            self.residents,
            store=self.store,
            namespace=self.namespace,
            max_bytes=self.resident_bytes,
            max_lag_s=self.resident_lag_s,
            warm_s=self.warm_s,
        )

    def obstacles(self) -> list[Obstacle]:
        """What keeps this bundle from being served now. One round trip to the store.

        A store that is away is none where residents stood in for it when it was asked. If they no longer do once it has
        failed, it has answered meanwhile, as after a failover, and had them dropped.
        """
        return [*self._device_obstacles(), *(self._store_obstacles() or self._warming_obstacles())]

    def obstacles_of_silence(self, found: str) -> list[Obstacle]:
        """What keeps it from being served if the store, asked now, does not answer in time, as ``found`` tells."""
        if self.residents.stand_in:
            return []
        return [Obstacle(check="store", found=found, remedy="see whether the state store is up and not overloaded")]

    def shortfall(self) -> str | None:
        """Why some requests cannot be answered now although others are: the store, or one server of it, is away.

        One round trip to each server of the store.
        """
        if self.residents.away is not None:
            return self.residents.away
        try:
            self.store.ping()
        except StoreError as error:
            return str(error)
        return None

    def _warming_obstacles(self) -> list[Obstacle]:
        if self.keeper.warming is None:
            return []
        return [Obstacle(check="residents", found=self.keeper.warming, remedy="wait, or lower --warm-seconds")]

    def _device_obstacles(self) -> list[Obstacle]:
        try:
            self.runtime.device()
            self.encoder.device()
        except DeviceUnavailableError as error:
            return [Obstacle(check="device", found=str(error), remedy="restart the service once the GPU works")]
        return []

    def _store_obstacles(self) -> list[Obstacle]:
        stood_in = self.residents.stand_in
        try:
            namespaces = self.store.namespaces()
        except (StoreError, StateError) as error:
            if stood_in:
                return []
            return [Obstacle(check="store", found=str(error), remedy="start the state store, or correct --store")]
        absence = absence_of(self.namespace, namespaces)
        if absence is None:
            return []
        return [
            Obstacle(
                check="states",
                found=absence,
                remedy=f"ubert precompute --bundle {self.bundle.path} --store URL --codec {self.namespace.codec}",
            )
        ]
