"""An opened bundle over a store: what answers requests."""

from collections.abc import Sequence
from functools import partial

from ubert_model.states import Namespace, StateStore
from ubert_service.explaining.explain import Explainer
from ubert_service.explaining.review_texts import ReviewTexts
from ubert_service.observability.metrics import PrometheusMetrics
from ubert_service.observability.observed import observed_store
from ubert_service.reading.inline import InlineReviews, InlineText
from ubert_service.resident.keeper import ResidentsKeeper
from ubert_service.resident.residents import Residents
from ubert_service.reviews.candidate_sets import CandidateSets
from ubert_service.reviews.directory import EntityDirectory
from ubert_service.reviews.listing import ReviewListing
from ubert_service.reviews.review_writer import ReviewWriter
from ubert_service.scoring.engine import ScoringEngine
from ubert_service.scoring.inline_encoding import encode_inline
from ubert_service.serving.device_check import DeviceCheck
from ubert_service.serving.opened import OpenedBundle
from ubert_service.telemetry import SILENT
from ubert_service.work.cancellation import Cancelled, never_cancelled


class ServedBundle:
    """The components built from a bundle and a store. API callers see its ``bundle_id``.

    ``residents`` read the store through a cache, which ``keeper``, once entered, warms and keeps coherent. Likewise
    ``device_check`` knows of the device. ``sampling_engine`` rates as ``engine`` does, for no caller.

    Does not touch the store, which may still be away. ``metrics`` receive each call of the store, what the cache does,
    and each run of a graph but for those of ``device_check`` and ``sampling_engine``; without them nothing is reported.
    Raises ``BundleError`` for a bundle that cannot be read.
    """

    def __init__(self, opened: OpenedBundle, store: StateStore, metrics: PrometheusMetrics | None = None) -> None:
        unobserved, telemetry = opened.runtime, SILENT
        if metrics is not None:
            opened, store, telemetry = opened.observed_by(metrics), observed_store(store, metrics), metrics
        self.opened = opened
        self.store = store
        self.bundle = bundle = opened.bundle
        self.codec = codec = opened.codec
        manifest, identities, settings = bundle.manifest, bundle.identities, opened.settings
        config = manifest.config
        self.residents = residents = Residents(
            store=store,
            codec=codec,
            config=config,
            usual=bundle.deviations,
            bias=manifest.bias,
            max_bytes=settings.resident_bytes,
            max_lag_s=settings.resident_lag,
            telemetry=telemetry,
        )
        self.keeper = ResidentsKeeper(
            residents,
            store=store,
            namespace=codec.namespace,
            max_bytes=settings.resident_bytes,
            max_lag_s=settings.resident_lag,
            warm_s=settings.warm_seconds,
        )
        self.device_check = DeviceCheck(unobserved, state_dim=manifest.state_dim)
        engine = partial(ScoringEngine, manifest=manifest, identities=identities, residents=residents)
        self.engine, self.sampling_engine = engine(runtime=opened.runtime), engine(runtime=unobserved)
        self.texts = ReviewTexts(
            store=store,
            codec=codec,
            tokenizer=opened.tokenizer,
            tokens_a_row=config.tokens_a_row,
            keeps=settings.texts,
        )
        self.explainer = Explainer(
            blend=manifest.blend,
            engine=self.engine,
            residents=residents,
            decomposer=opened.decomposer,
            texts=self.texts,
        )
        self.reviews = ReviewWriter(
            scale=config.scale,
            codec=codec,
            store=store,
            residents=residents,
            encoder=opened.encoder,
            reader=self.bundle.text_reader,
            texts=self.texts,
        )
        self.candidate_sets = CandidateSets(store)
        self.listing = ReviewListing(identities=identities, residents=residents)
        self.directory = EntityDirectory(identities=identities, residents=residents)

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

    def encode_inline(
        self, user: str, texts: Sequence[InlineText], cancelled: Cancelled = never_cancelled
    ) -> InlineReviews:
        """Encode a request's inline texts. Raises as :func:`inline_encoding.encode_inline` does."""
        manifest = self.bundle.manifest
        return encode_inline(
            texts,
            user=user,
            encoder=self.opened.encoder,
            codec=self.codec,
            scale=manifest.config.scale,
            mean=manifest.bias.mean,
            cancelled=cancelled,
        )
