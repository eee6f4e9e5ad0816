"""What decides the width of an interval: every known review of the user, as in training, and not only those read."""

from dataclasses import replace

import numpy as np

from support.tiny_bundle import Corpus, TinyBundle
from ubert_model.bundle import SCORER_GRAPH
from ubert_model.states import StateStore
from ubert_service.reading.histories import Pair
from ubert_service.resident.residents import Residents
from ubert_service.scoring.engine import ScoringEngine
from ubert_service.scoring.runtime import OnnxRuntime


def test_a_review_without_text_counts_for_the_interval(
    tiny: TinyBundle, corpus: Corpus, lmdb_store: StateStore
) -> None:
    manifest, nothing = tiny.bundle.manifest, np.zeros((0, tiny.bundle.manifest.state_dim), dtype=np.float32)
    known = len(corpus.of_user("u0"))
    silenced = corpus
    for entry in corpus.of_user("u0")[1:]:
        silenced = silenced.changed(replace(entry, rows=0), nothing)
    silenced.write(lmdb_store, tiny.bundle)
    residents = Residents(
        store=lmdb_store,
        codec=tiny.bundle.codec("fp32"),
        config=manifest.config,
        usual=tiny.bundle.deviations,
        bias=manifest.bias,
        max_bytes=0,
    )
    runtime = OnnxRuntime(tiny.bundle.file(SCORER_GRAPH), device="cpu", threads=1)
    engine = ScoringEngine(manifest=manifest, identities=tiny.bundle.identities, residents=residents, runtime=runtime)
    (rated,) = engine.score([Pair("u0", "nobody's")])
    assert rated.user_reviews == 1
    (by_known, by_read), _ = manifest.intervals.around([rated.rating] * 2, [known, 1], manifest.config.scale)
    assert rated.low == by_known != by_read
