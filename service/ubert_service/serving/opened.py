"""A bundle that is read and whose graphs are open, before it has a store."""

from dataclasses import dataclass, replace
from typing import Any, Self

from ubert_model.bundle import ENCODER_GRAPH, EXPLAINER_GRAPH, Bundle
from ubert_model.states import StateCodec, require_codec
from ubert_model.tokenizer import ReviewTokenizer
from ubert_service.explaining.explainer_graph import OnnxExplainer, OutputDecomposer
from ubert_service.observability.metrics import PrometheusMetrics
from ubert_service.observability.observed import ObservedDecomposer, ObservedEncoder, ObservedRuntime
from ubert_service.scoring.encoding import OnnxReviewEncoder, ReviewEncoding
from ubert_service.scoring.runtime import ScoringRuntime
from ubert_service.scoring.runtime_choice import open_runtime
from ubert_service.settings import Settings


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenedBundle:
    """One bundle under one codec, with its graphs on a device. Any number of ``ServedBundle`` may share it."""

    bundle: Bundle
    evaluation: Any
    """What evaluation recorded, read when the bundle was opened: an export may have replaced the folder since."""
    codec: StateCodec
    tokenizer: ReviewTokenizer
    encoder: ReviewEncoding
    runtime: ScoringRuntime
    decomposer: OutputDecomposer
    settings: Settings

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Read the bundle of the settings and open its graphs.

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
            evaluation=bundle.metrics(),
            codec=bundle.codec(settings.codec),
            tokenizer=tokenizer,
            encoder=encoder,
            runtime=open_runtime(settings, bundle, encoder),
            decomposer=OnnxExplainer(bundle.file(EXPLAINER_GRAPH), device=settings.device, threads=settings.threads),
            settings=settings,
        )

    def observed_by(self, metrics: PrometheusMetrics) -> Self:
        """The same graphs, each of whose runs is reported."""
        return replace(
            self,
            encoder=ObservedEncoder(self.encoder, metrics),
            runtime=ObservedRuntime(self.runtime, metrics),
            decomposer=ObservedDecomposer(self.decomposer, metrics),
        )
