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
from ubert_service.observability.metrics import PrometheusMetrics
from ubert_service.observability.observed import ObservedDecomposer, ObservedEncoder, ObservedRuntime, observed_store
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
from ubert_service.telemetry import SILENT, ResidentsTelemetry


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
    settings: Settings
    telemetry: ResidentsTelemetry = SILENT

    residents: Residents = field(init=False)
    """Reads the store through a cache."""
    keeper: ResidentsKeeper = field(init=False)
    """Warms the residents and keeps them coherent, once entered."""
    engine: ScoringEngine = field(init=False)
    texts: ReviewTexts = field(init=False)
    """The texts of reviews, if they are kept."""
    explainer: Explainer = field(init=False)
    reviews: ReviewWriter = field(init=False)
    candidate_sets: CandidateSets = field(init=False)
    listing: ReviewListing = field(init=False)
    directory: EntityDirectory = field(init=False)

    def __post_init__(self) -> None:
        # Eagerly, not on first use: two threads at once must not build one each.
        manifest, store, settings = self.bundle.manifest, self.store, self.settings
        config = manifest.config
        self.residents = residents = Residents(
            store=store,
            codec=self.codec,
            config=config,
            usual=self.bundle.deviations,
            bias=manifest.bias,
            max_bytes=settings.resident_bytes,
            max_lag_s=settings.resident_lag,
            telemetry=self.telemetry,
        )
        self.keeper = ResidentsKeeper(
            residents,
            store=store,
            namespace=self.namespace,
            max_bytes=settings.resident_bytes,
            max_lag_s=settings.resident_lag,
            warm_s=settings.warm_seconds,
        )
        self.engine = ScoringEngine(
            manifest=manifest, identities=self.identities, residents=residents, runtime=self.runtime
        )
        self.texts = ReviewTexts(
            store=store,
            codec=self.codec,
            tokenizer=self.tokenizer,
            tokens_a_row=config.tokens_a_row,
            keeps=settings.texts,
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
            settings=settings,
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

    def reporting_to(self, metrics: PrometheusMetrics) -> Self:
        """The same bundle, with a store and graphs that report the time of each call."""
        return replace(
            self,
            store=observed_store(self.store, metrics),
            runtime=ObservedRuntime(self.runtime, metrics),
            encoder=ObservedEncoder(self.encoder, metrics),
            decomposer=ObservedDecomposer(self.decomposer, metrics),
            telemetry=metrics,
        )
