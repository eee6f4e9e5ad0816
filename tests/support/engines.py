"""A bundle's residents and engine over any store and runtime, without the rest of the service."""

from typing import Any

from ubert_model.bundle import Bundle
from ubert_model.states import StateStore
from ubert_service.resident.residents import Residents
from ubert_service.scoring.engine import ScoringEngine
from ubert_service.scoring.runtime import ScoringRuntime


def residents_over(store: StateStore, bundle: Bundle, codec: str = "fp32", **options: Any) -> Residents:
    """``options``: ``max_bytes`` and whatever else :class:`Residents` takes."""
    manifest = bundle.manifest
    return Residents(
        store=store,
        codec=bundle.codec(codec),
        config=manifest.config,
        usual=bundle.deviations,
        bias=manifest.bias,
        **options,
    )


def engine_over(residents: Residents, bundle: Bundle, runtime: ScoringRuntime, **limits: int) -> ScoringEngine:
    """``limits`` as :class:`ScoringEngine` takes them."""
    return ScoringEngine(
        manifest=bundle.manifest, identities=bundle.identities, residents=residents, runtime=runtime, **limits
    )
