"""How fast pairs are scored from resident states, and how much of this machine's arithmetic that uses.

    python tests/benchmarks/scoring.py --reviews data/reviews            # one user against 1,000 real candidates
    python tests/benchmarks/scoring.py --growth                          # candidates, tokens, entities; growth.png

Histories, their ratings and their lengths are those of the review table. The states are MiniLM's for other reviews, and
the weights are random: neither changes the time. There are two tiers: *exact*, d = 384 and 512 tokens a side, and
*default*, the preset's projection and tokens. The engine (assembly included) scores each on every runtime; the baseline
is a plain implementation of the paper's equations in eager fp32 torch, pair by pair, on the same tensors. Rounds
alternate between all of them; medians are printed. The arithmetic counted is what a pair needs, 6 Nu Ni D + 4 (Nu + Ni)
D²; its share is of the fastest matrix product measured here in the same precision.
"""

import argparse
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from safetensors.torch import save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.rating_columns import rating_columns
from support.tiny_bundle import BIAS, INTERVALS, ITEM_WORTH, USER_WORTH
from ubert_model.bundle import SCORER_GRAPH, WEIGHTS, Bundle, Manifest, file_digest
from ubert_model.config import ModelConfig, preset
from ubert_model.ids import Identities, IdTable
from ubert_model.nn.co_matching import Matches
from ubert_model.nn.devices import has_native_bfloat16
from ubert_model.nn.pair_scorer import PairScorer
from ubert_model.review import ReviewEntry, Side
from ubert_model.states import FloatMatrix
from ubert_model.tokenizer import ReviewTokenizer
from ubert_service.reading.histories import Pair, ReviewList, ReviewLists, SideStatistics
from ubert_service.scoring.assembly import ScorerBatch
from ubert_service.scoring.engine import ScoringEngine
from ubert_service.scoring.runtime import ActiveDevice, OnnxRuntime, ScoringRuntime
from ubert_service.scoring.torch_runtime import TorchRuntime
from ubert_training.commands.options import load_reviews
from ubert_training.export.graphs import export_scorer
from ubert_training.finetuning.usual_fit import fit_usual_deviations
from ubert_training.planning.plan import pair_flops
from ubert_training.reviews.table import ReviewTable
from ubert_training.running.timing import seconds_of
from ubert_training.states.tokens import TokenizedReviews
from ubert_training.weights.backbones import load_backbone

TIERS: Mapping[str, ModelConfig] = {
    "exact": replace(
        preset("minilm"),
        max_length=128,
        max_reviews=20,
        max_rows=512,
        state_dim=None,
        tokens_a_row=1,
        match_pooling="max",
    ),
    "default": preset("minilm"),
}
WIDTH = 384
POOL_ROWS = 32 * 1024
EAGER_PAIRS = 40
ROUNDS = 5
GROWTH_CANDIDATES = (10, 30, 100, 300, 1_000, 3_000, 10_000)
GROWTH_TOKENS = (64, 128, 256, 512, 1_024, 2_048)
GROWTH_ENTITIES = (1_000, 10_000, 100_000)


class InMemoryResidents:
    """The part of ``Residents`` that the engine reads, all in memory. States are slices of one pool of real rows."""

    def __init__(
        self,
        entries: Iterable[ReviewEntry],
        config: ModelConfig,
        pool: FloatMatrix,
        identities: Identities | None = None,
    ) -> None:
        of_user, of_item = defaultdict(list), defaultdict(list)
        for entry in sorted(entries, key=lambda entry: entry.recency, reverse=True):
            of_user[entry.user].append(entry)
            of_item[entry.item].append(entry)
        self.identities = identities or Identities(
            IdTable(of_user), IdTable(of_item), IdTable(["d"]), dict.fromkeys(of_item, "d"), "d"
        )
        no_ratings = rating_columns([], user_ids=self.identities.users, item_ids=self.identities.items)
        usual = fit_usual_deviations(no_ratings, USER_WORTH, ITEM_WORTH)
        of_users, of_items = SideStatistics(Side.USER, usual, BIAS), SideStatistics(Side.ITEM, usual, BIAS)
        self._of_user = {user: ReviewList.of(user, reviews, of_users, config) for user, reviews in of_user.items()}
        self._of_item = {item: ReviewList.of(item, reviews, of_items, config) for item, reviews in of_item.items()}
        starts = np.random.default_rng(0).integers(0, len(pool) - config.max_length, len(of_user) + len(of_item))
        self._states = {
            review.review_id: pool[start : start + review.rows]
            for reviews, start in zip((*of_user.values(), *of_item.values()), starts, strict=True)
            for review in reviews
        }

    def read(self, pairs: Sequence[Pair], users: Mapping[str, ReviewList]) -> ReviewLists:
        return ReviewLists(
            users={pair.user: self._of_user[pair.user] for pair in pairs},
            items={pair.item: self._of_item[pair.item] for pair in pairs},
        )

    def states(self, review_ids: Iterable[str]) -> dict[str, FloatMatrix]:
        return {review_id: self._states[review_id] for review_id in review_ids}

    def busiest_user(self) -> str:
        """The user with the longest history."""
        return max(
            self._of_user, key=lambda user: sum(review.rows for review in self._of_user[user].full_history.selected)
        )


class Recorder:
    """A runtime that computes nothing and records its inputs."""

    device: ActiveDevice = "cpu"

    def __init__(self) -> None:
        self.batches: list[ScorerBatch] = []

    def score(self, batch: ScorerBatch) -> NDArray[np.float32]:
        self.batches.append(batch)
        return np.zeros(len(batch.item), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One tier: its reviews, its network, and the engine over any runtime."""

    config: ModelConfig
    pool: FloatMatrix
    residents: InMemoryResidents
    scorer: PairScorer
    runtimes: Mapping[str, ScoringRuntime]

    def engine(self, runtime: ScoringRuntime) -> ScoringEngine:
        return ScoringEngine(
            manifest=manifest_of(self.config, self.scorer.dim),
            identities=self.residents.identities,
            residents=self.residents,  # type: ignore[arg-type]  # the engine uses these two methods alone
            runtime=runtime,
        )

    def single_pairs(self, pairs: Sequence[Pair]) -> list[dict[str, Tensor]]:
        """The network's inputs of each pair alone, without padding."""
        recorder = Recorder()
        engine = self.engine(recorder)
        for pair in pairs:
            engine.score([pair])
        return [
            {name: torch.from_numpy(values) for name, values in batch.graph_inputs().items()}
            for batch in recorder.batches
        ]


def manifest_of(config: ModelConfig, dim: int, *weights: Path) -> Manifest:
    return Manifest(
        config=config,
        state_dim=dim,
        encoder_digest="none",
        bias=BIAS,
        blend_weight=0.5,
        intervals=INTERVALS,
        files={path.name: file_digest(path) for path in weights},
    )


def make_bench(
    config: ModelConfig, entries: Iterable[ReviewEntry], pool: FloatMatrix, directory: Path, threads: int
) -> Bench:
    dim = config.state_dim or WIDTH
    if dim < WIDTH:
        pool = pool @ np.random.default_rng(1).normal(scale=WIDTH**-0.5, size=(WIDTH, dim)).astype(np.float32)
    residents = InMemoryResidents(entries, config, pool)
    torch.manual_seed(0)
    scorer = PairScorer(
        dim,
        config,
        users=len(residents.identities.users),
        items=len(residents.identities.items),
        domains=1,
        mean_rating=0.0,
    ).eval()
    directory.mkdir(exist_ok=True)
    if not (directory / SCORER_GRAPH).exists():  # the same weights for any number of threads
        export_scorer(scorer, directory / SCORER_GRAPH)
    save_file(scorer.state_dict(), directory / WEIGHTS)
    bundle = Bundle(directory, manifest_of(config, dim, directory / WEIGHTS))
    bundle.__dict__["identities"] = residents.identities  # in place of a file
    runtimes: dict[str, ScoringRuntime] = {
        "onnx": OnnxRuntime(directory / SCORER_GRAPH, device="cpu", threads=threads),
        "torch": TorchRuntime(bundle, device="cpu", threads=threads, bfloat16=False),
    }
    if has_native_bfloat16(torch.device("cpu")):
        runtimes["torch-bf16"] = TorchRuntime(bundle, device="cpu", threads=threads, bfloat16=True)
    return Bench(config=config, pool=pool, residents=residents, scorer=scorer, runtimes=runtimes)


def read_entries(table: ReviewTable, config: ModelConfig, tokenizer_json: str) -> list[ReviewEntry]:
    tokens = TokenizedReviews.of(table.text, ReviewTokenizer(tokenizer_json, config.max_length))
    lengths = tokens.row_counts(config.tokens_a_row).tolist()
    columns = zip(
        table.review_id, table.user, table.item, table.rating.tolist(), table.timestamp.tolist(), lengths, strict=True
    )
    return [
        ReviewEntry(review_id=name, user=user, item=item, rating=rating, timestamp=timestamp, rows=tokens)
        for name, user, item, rating, timestamp, tokens in columns
    ]


def real_rows(texts: Sequence[str]) -> FloatMatrix:
    """MiniLM's states for the first of these texts, repeated to the size of the pool: (POOL_ROWS, 384)."""
    backbone = load_backbone("minilm")
    tokens = TokenizedReviews.of(texts[:64], ReviewTokenizer(backbone.tokenizer_json, 128))
    ids, mask = tokens.padded(range(len(tokens)))
    with torch.inference_mode():
        states = backbone.bert.eval()(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    rows: FloatMatrix = np.resize(states[mask].numpy(), (POOL_ROWS, WIDTH))
    return rows


def eager(scorer: PairScorer, inputs: Mapping[str, Tensor]) -> Tensor:
    """The baseline: Eq. 11–14 as the paper writes them, for one pair without padding, with the model's options for
    ratings and pooling.
    """
    head = scorer.head
    domain = scorer.domain_embedding(inputs["domain"])
    sides = [inputs[f"{side}_states"] for side in ("user", "item")]
    residuals = [inputs[f"{side}_residuals"] for side in ("user", "item")]
    user_query, item_query = (
        scorer.user_query(inputs["user"], domain),
        scorer.item_query(inputs["item"], domain),
    )
    representations = (
        head.user_encoder(user_query, sides[0], inputs["user_mask"]),
        head.item_encoder(item_query, sides[1], inputs["item_mask"]),
    )
    vectors, ratings = [], []
    for states, others, other_residuals in ((*sides, residuals[1]), (*sides[::-1], residuals[0])):
        weights = (states @ others.mT / states.shape[-1] ** 0.5).softmax(-1)
        aligned = weights @ others
        matching = torch.tanh(head.co_matching.kernel(torch.cat([states - aligned, states * aligned], -1)))
        vectors.append(matching.amax(1) if head.co_matching.pooling == "max" else matching.mean(1))
        ratings.append((weights @ other_residuals.unsqueeze(-1)).squeeze(-1).mean(1))
    predicted: Tensor = head.prediction_layer(*representations, Matches(*vectors, *ratings))
    return predicted


def flops_a_pair(inputs: Sequence[Mapping[str, Tensor]], dim: int) -> float:
    """Floating point operations that a pair needs, on average."""
    sizes = [(int(pair["user_mask"].sum()), int(pair["item_mask"].sum())) for pair in inputs]
    return statistics.mean(pair_flops(user, item, dim) for user, item in sizes)


def matmul_peaks(threads: int) -> dict[str, float]:
    """Operations a second in the fastest large matrix product: fp32 by torch or ONNX Runtime, bf16 by torch."""
    size = 1024
    product = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [size, size]) for name in "ab"],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [size, size])],
    )
    model: onnx.ModelProto = helper.make_model(product, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    matrix = torch.randn(size, size)
    half = matrix.bfloat16()
    feeds = {"a": matrix.numpy(), "b": matrix.numpy()}
    seconds = {
        "fp32": min(fastest(lambda: matrix @ matrix), fastest(lambda: session.run(None, feeds))),
        "bf16": fastest(lambda: half @ half),
    }
    return {precision: 2 * size**3 / each for precision, each in seconds.items()}


def fastest(work: Callable[[], object]) -> float:
    return min(seconds_of(work) for _ in range(15))


def compare(tiers: Mapping[str, Bench], candidates: int, threads: int) -> None:
    """Time every tier on every runtime and in eager torch, alternating, and print the results."""
    seconds: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    flops = {}
    work: dict[tuple[str, str], tuple[Callable[[], object], int]] = {}
    for tier, bench in tiers.items():
        user = bench.residents.busiest_user()
        pairs = [Pair(user, item) for item in bench.residents.identities.items.identifiers[:candidates]]
        flops[tier] = flops_a_pair(bench.single_pairs(pairs), bench.scorer.dim)
        singles = bench.single_pairs(pairs[:: max(1, len(pairs) // EAGER_PAIRS)])

        def pair_by_pair(bench: Bench = bench, singles: Sequence[Mapping[str, Tensor]] = singles) -> None:
            with torch.inference_mode():
                for inputs in singles:
                    eager(bench.scorer, inputs)

        work[tier, "eager fp32"] = (pair_by_pair, len(singles))
        for name, runtime in bench.runtimes.items():
            work[tier, name] = (partial(bench.engine(runtime).score, pairs), len(pairs))
    for number in range(ROUNDS + 1):
        for key, (each, size) in work.items():
            took = seconds_of(each) / size
            if number:  # the first round warms up
                seconds[key].append(took)
    median = {key: statistics.median(of_rounds) for key, of_rounds in seconds.items()}
    peaks = matmul_peaks(threads)
    print(f"{threads} thread(s); matrix product: " + ", ".join(f"{v / 1e9:.0f} GFLOP/s {k}" for k, v in peaks.items()))
    for (tier, name), spent in median.items():
        precision = "bf16" if name == "torch-bf16" else "fp32"
        print(
            f"{tier:8s} {name:11s} {1e3 * spent:8.3f} ms a pair {1 / spent:8.0f} pairs/s "
            f"{median[tier, 'eager fp32'] / spent:6.2f}× eager of this tier "
            f"{median['exact', 'eager fp32'] / spent:7.2f}× eager of full states  {flops[tier] / 1e6:7.1f} MFLOP, "
            f"{flops[tier] / spent / peaks[precision]:4.0%} of the {precision} peak"
        )


def synthetic(entities: int, tokens: int, max_length: int) -> list[ReviewEntry]:
    """One user and ``entities`` items without common reviews, each with reviews of ``tokens`` tokens in all."""
    sides = [("user", f"other item {n}") for n in range(0, tokens, max_length)]
    sides += [(f"other user {n}", f"item {number}") for number in range(entities) for n in range(0, tokens, max_length)]
    return [
        ReviewEntry(review_id=str(row), user=user, item=item, rating=4.0, timestamp=row, rows=min(max_length, tokens))
        for row, (user, item) in enumerate(sides)
    ]


def growth(directory: Path, pool: FloatMatrix, plot: Path) -> None:
    """Print tables and draw a plot of the default tier's time against three sizes, for one and two threads."""
    curves: dict[str, defaultdict[str, tuple[list[int], list[float]]]] = {
        axis: defaultdict(lambda: ([], [])) for axis in ("candidates", "tokens a side", "entities")
    }

    def measure(axis: str, size: int, bench: Bench, pairs: Sequence[Pair], *, share: int = 1) -> None:
        for name, runtime in bench.runtimes.items():
            sizes, times = curves[axis][f"{name}, {threads} thread(s)"]
            sizes.append(size)
            times.append(median_of(bench.engine(runtime), pairs) / share)

    for threads in (1, 2):
        torch.set_num_threads(threads)
        all_pairs = [Pair("user", f"item {number}") for number in range(GROWTH_CANDIDATES[-1])]
        bench = make_bench(TIERS["default"], synthetic(len(all_pairs), 256, 64), pool, directory, threads)
        for candidates in GROWTH_CANDIDATES:
            measure("candidates", candidates, bench, all_pairs[:candidates])
        for tokens in GROWTH_TOKENS:
            config = replace(TIERS["default"], max_rows=tokens, max_reviews=tokens // 64)
            residents = InMemoryResidents(synthetic(16, tokens, 64), config, bench.pool, bench.residents.identities)
            measure(
                "tokens a side", tokens, replace(bench, config=config, residents=residents), all_pairs[:16], share=16
            )
        for entities in GROWTH_ENTITIES:
            many_items = make_bench(
                TIERS["default"], synthetic(entities, 64, 64), pool, directory / f"{entities} entities", threads
            )
            chosen = np.random.default_rng(2).choice(entities, 100, replace=False)
            measure("entities", entities, many_items, [Pair("user", f"item {number}") for number in chosen])
    for axis, lines in curves.items():
        for label, (sizes, times) in lines.items():
            slopes = np.diff(np.log(times)) / np.diff(np.log(sizes))
            cells = "  ".join(f"{size}: {1e3 * each:.3g}" for size, each in zip(sizes, times, strict=True))
            print(f"ms by {axis} | {label:24s} | {cells} | slope {slopes[0]:.2f} at first, {slopes[-1]:.2f} at last")
    draw(curves, plot)


def median_of(engine: ScoringEngine, pairs: Sequence[Pair]) -> float:
    times = [seconds_of(lambda: engine.score(pairs)) for _ in range(3 if len(pairs) > 1_000 else 6)]
    return statistics.median(times[1:])


def draw(curves: Mapping[str, Mapping[str, tuple[list[int], list[float]]]], plot: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(curves), figsize=(15, 4), layout="constrained")
    for axis, (name, lines) in zip(axes, curves.items(), strict=True):
        for label, (sizes, times) in lines.items():
            axis.loglog(sizes, [1e3 * each for each in times], marker="o", label=label)
        axis.set(xlabel=name, ylabel="ms a pair" if name == "tokens a side" else "ms a request")
        if name == "entities":
            axis.set_yscale("linear")
            axis.set_ylim(bottom=0)
        axis.grid(visible=True, alpha=0.3)
    axes[0].legend()
    figure.savefig(plot, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviews", type=Path, help="what `ubert import` wrote")
    parser.add_argument("--candidates", type=int, default=1_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--growth", action="store_true", help="print and draw the growth tables instead")
    parser.add_argument("--plot", type=Path, default=Path(__file__).parent / "growth.png")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.growth:
            pool = np.random.default_rng(0).normal(scale=0.5, size=(POOL_ROWS, WIDTH)).astype(np.float32)
            growth(Path(scratch), pool, arguments.plot)
            return
        if arguments.reviews is None:
            parser.error("give --reviews, or --growth, which needs none")
        table = load_reviews(arguments.reviews)
        pool = real_rows(table.text)
        tokenizer_json = load_backbone("minilm").tokenizer_json
        tiers = {
            name: make_bench(
                config,
                read_entries(table, config, tokenizer_json),
                pool,
                Path(scratch, name),
                arguments.threads,
            )
            for name, config in TIERS.items()
        }
        compare(tiers, arguments.candidates, arguments.threads)


if __name__ == "__main__":
    main()
