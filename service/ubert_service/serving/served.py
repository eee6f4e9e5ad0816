"""A bundle ready to serve: loaded, with its graphs on a device and its states in a store."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from ubert_model.bundle import ENCODER_GRAPH, EXPLAINER_GRAPH, Bundle
from ubert_model.ids import Identities
from ubert_model.states import Namespace, StateCodec, StateStore, require_codec
from ubert_model.tokenizer import ReviewTokenizer
from ubert_service.explaining.explain import Explainer
from ubert_service.explaining.explainer_graph import OnnxExplainer, OutputDecomposer
from ubert_service.explaining.review_texts import ReviewTexts
from ubert_service.observability.observed import ObservedDecomposer, ObservedEncoder, ObservedRuntime, ObservedStore
from ubert_service.reading.inline import InlineReviews, InlineText
from ubert_service.resident.keeper import ResidentsKeeper
from ubert_service.resident.residents import Residents
from ubert_service.reviews.candidate_sets import CandidateSets
from ubert_service.reviews.directory import EntityDirectory
from ubert_service.reviews.listing import ReviewListing
from ubert_service.reviews.review_writer import ReviewWriter
from ubert_service.scoring.encoding import OnnxReviewEncoder, ReviewEncoding
from ubert_service.scoring.engine import ScoringEngine
from ubert_service.scoring.inline_encoding import encode_inline
from ubert_service.scoring.runtime import ScoringRuntime
from ubert_service.scoring.runtime_choice import open_runtime
from ubert_service.settings import Settings
from ubert_service.telemetry import SILENT, ResidentsTelemetry, Telemetry


@dataclass(kw_only=True, eq=False)
class ServedBundle:
    """One bundle under one codec, with the components built from it. API callers see its ``bundle_id``."""

    bundle: Bundle
    metrics: Any
    """What evaluation recorded, read when the bundle was loaded: an export may have replaced the folder since."""
    identities: Identities
    codec: StateCodec
    store: StateStore
    runtime: ScoringRuntime
    encoder: ReviewEncoding
    tokenizer: ReviewTokenizer
    decomposer: OutputDecomposer
    resident_bytes: int
    resident_lag_s: float
    warm_s: float
    keeps_texts: bool
    telemetry: ResidentsTelemetry = SILENT

    residents: Residents = field(init=False)
    """Reads the store through a cache."""
    keeper: ResidentsKeeper = field(init=False)
    """Warms the residents and keeps them coherent, once entered."""
    engine: ScoringEngine = field(init=False)
    """Rates pairs."""
    texts: ReviewTexts = field(init=False)
    """The texts of reviews, if they are kept."""
    explainer: Explainer = field(init=False)
    """Explains ratings."""
    reviews: ReviewWriter = field(init=False)
    """Writes and removes reviews."""
    candidate_sets: CandidateSets = field(init=False)
    """The stored sets of items to rank."""
    listing: ReviewListing = field(init=False)
    """The reviews of one user or item, page by page."""
    directory: EntityDirectory = field(init=False)
    """Finds users and items by identifier prefix."""

    def __post_init__(self) -> None:
        # Eagerly, not on first use: two threads at once must not build one each.
        manifest, store = self.bundle.manifest, self.store
        config = manifest.config
        self.residents = residents = Residents(
            store=store,
            codec=self.codec,
            config=config,
            usual=self.bundle.deviations,
            bias=manifest.bias,
            max_bytes=self.resident_bytes,
            max_lag_s=self.resident_lag_s,
            telemetry=self.telemetry,
        )
        self.keeper = ResidentsKeeper(
            residents,
            store=store,
            namespace=self.namespace,
            max_bytes=self.resident_bytes,
            max_lag_s=self.resident_lag_s,
            warm_s=self.warm_s,
        )
        self.engine = ScoringEngine(
            manifest=manifest, identities=self.identities, residents=residents, runtime=self.runtime
        )
        self.texts = ReviewTexts(
            store=store,
            codec=self.codec,
            tokenizer=self.tokenizer,
            tokens_a_row=config.tokens_a_row,
            keeps=self.keeps_texts,
        )
        self.explainer = Explainer(
            manifest=manifest, engine=self.engine, residents=residents, decomposer=self.decomposer, texts=self.texts
        )
        self.reviews = ReviewWriter(
            scale=config.scale,
            codec=self.codec,
            store=store,
            residents=residents,
            encoder=self.encoder,
            texts=self.texts,
        )
        self.candidate_sets = CandidateSets(store)
        self.listing = ReviewListing(identities=self.identities, residents=residents)
        self.directory = EntityDirectory(identities=self.identities, residents=residents)

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
            metrics=bundle.metrics(),
            identities=bundle.identities,
            codec=bundle.codec(settings.codec),
            store=store,
            runtime=open_runtime(settings, bundle, encoder),
            encoder=encoder,
            tokenizer=tokenizer,
            decomposer=OnnxExplainer(bundle.file(EXPLAINER_GRAPH), device=settings.device, threads=settings.threads),
            resident_bytes=settings.resident_bytes,
            resident_lag_s=settings.resident_lag,
            warm_s=settings.warm_seconds,
            keeps_texts=settings.texts,
        )

    @property
    def namespace(self) -> Namespace:
        """The namespace of the served states in the store."""
        return self.codec.namespace

    @property
    def bundle_id(self) -> str:
        """Digest over everything in the bundle."""
        return self.bundle.manifest.bundle_id

    @property
    def coverage(self) -> float:
        """The nominal coverage of its rating intervals."""
        return self.bundle.manifest.intervals.coverage

    def encode_inline(self, user: str, texts: Sequence[InlineText]) -> InlineReviews:
        """Encode a request's inline texts. Raises as :func:`inline_encoding.encode_inline` does."""
        scale, mean = self.bundle.manifest.config.scale, self.bundle.manifest.bias.mean
        return encode_inline(texts, user=user, encoder=self.encoder, scale=scale, mean=mean)

    def reporting_to(self, telemetry: Telemetry) -> Self:
        """The same bundle, with a store and graphs that report the time of each call."""
        return replace(
            self,
            store=ObservedStore(self.store, telemetry),
            runtime=ObservedRuntime(self.runtime, telemetry),
            encoder=ObservedEncoder(self.encoder, telemetry),
            decomposer=ObservedDecomposer(self.decomposer, telemetry),
            telemetry=telemetry,
        )
