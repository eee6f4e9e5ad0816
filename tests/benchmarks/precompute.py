"""Tokens a second of precompute, including writes to the store, against sentence-transformers with the same weights.

    python tests/benchmarks/precompute.py --reviews data/reviews --bundle data/bundle

The baseline is ``SentenceTransformer.encode(output_value="token_embeddings")``, which keeps its states in memory.
Rounds alternate, so that a busy machine slows all alike; ratios are medians over rounds. On a shared machine, use the
rates in processor seconds. Below each encoder stands the relative root mean square difference of its states from those
of torch in fp32.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Transformer
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from ubert_model.bundle import ENCODER_GRAPH, TOKENIZER, Bundle
from ubert_model.states import FloatMatrix, open_store
from ubert_training.commands.options import load_reviews
from ubert_training.reviews.table import ReviewTable
from ubert_training.states.precompute import find_work, write_missing
from ubert_training.states.review_encoders import BatchEncoder, OnnxEncoder, TorchEncoder, load_encoder
from ubert_training.states.token_batches import token_batches

CODEC = "fp32"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviews", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--count", type=int, default=512, help="reviews a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bundle, table = Bundle.load(options.bundle), load_reviews(options.reviews)
    rows = np.random.default_rng(0).permutation(len(table))[: options.count]
    with tempfile.TemporaryDirectory() as scratch:
        encoders = candidates(bundle, Path(scratch), options.threads)
        reference = encoders["torch fp32"]
        workloads: dict[str, Callable[[], int]] = {
            name: partial(precompute_once, table, rows, bundle, encoder) for name, encoder in encoders.items()
        }
        baseline = sentence_transformer(bundle, Path(scratch))
        texts = [table.text[row] for row in rows.tolist()]
        workloads = {"sentence-transformers": lambda: encode_once(baseline, texts), **workloads}
        rates = measured(workloads, options.rounds)
        print(f"{options.count} reviews, at most {bundle.manifest.config.max_length} tokens, {options.threads} threads")
        for name, measured_rates in rates.items():
            print(f"{name}: {compared(measured_rates, rates['sentence-transformers'])}")
            if name in encoders:
                print(f"    states off by {difference(table, rows, bundle, encoders[name], reference):.1e}")


def compared(rates: NDArray[np.float64], baseline: NDArray[np.float64]) -> str:
    """A line on tokens a second of the clock and of the processor, (rounds, 2) each, with ratios to the baseline's."""
    ratios = np.sort(rates / baseline, axis=0)
    clock, processor = (
        f"{np.median(rates[:, column]):,.0f} ({np.median(ratios[:, column]):.2f}×, {ratios[0, column]:.2f} to "
        f"{ratios[-1, column]:.2f})"
        for column in (0, 1)
    )
    return f"tokens a second {clock}; tokens a processor second {processor}"


def candidates(bundle: Bundle, scratch: Path, threads: int) -> dict[str, BatchEncoder]:
    """The encoders that precompute can use, and one with 8-bit weights, which it does not use."""
    cpu, encoder = torch.device("cpu"), load_encoder(bundle)
    quantized = scratch / "int8.onnx"
    quantize_dynamic(bundle.file(ENCODER_GRAPH), quantized, weight_type=QuantType.QInt8, per_channel=True)
    return {
        "torch fp32": TorchEncoder(encoder, cpu, bfloat16=False),
        "precompute, fp32 (ONNX Runtime)": OnnxEncoder.of(bundle, threads),
        "precompute --precision bf16 (torch)": TorchEncoder(encoder, cpu, bfloat16=True),
        "not used: int8 weights (ONNX Runtime)": OnnxEncoder(
            quantized,
            state_dim=bundle.manifest.state_dim,
            tokens_a_row=bundle.manifest.config.tokens_a_row,
            threads=threads,
        ),
    }


def sentence_transformer(bundle: Bundle, scratch: Path) -> SentenceTransformer:
    """The bundle's encoder, loaded by sentence-transformers from a directory."""
    load_encoder(bundle).bert.save_pretrained(scratch / "bert")
    tokenizer = Tokenizer.from_file(str(bundle.file(TOKENIZER)))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(scratch / "bert")
    length = bundle.manifest.config.max_length
    return SentenceTransformer(modules=[Transformer(str(scratch / "bert"), max_seq_length=length)], device="cpu")


def measured(workloads: dict[str, Callable[[], int]], rounds: int) -> dict[str, NDArray[np.float64]]:
    """Tokens a second of the clock and of the processor, (rounds, 2) each, after a round that warms up."""
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in workloads}
    for number in range(rounds + 1):
        for name, work in workloads.items():
            clock, processor = time.perf_counter(), time.process_time()
            tokens = work()
            if number:
                rates[name].append((tokens / (time.perf_counter() - clock), tokens / (time.process_time() - processor)))
    return {name: np.array(found) for name, found in rates.items()}


def encode_once(model: SentenceTransformer, texts: list[str]) -> int:
    states = model.encode(texts, output_value="token_embeddings", show_progress_bar=False)
    return sum(len(matrix) for matrix in states)


def precompute_once(table: ReviewTable, rows: NDArray[np.int64], bundle: Bundle, encoder: BatchEncoder) -> int:
    codec = bundle.codec(CODEC)
    with tempfile.TemporaryDirectory() as directory, closing(open_store(f"lmdb:{directory}")) as store:
        work = find_work(table, rows, bundle, store, codec)
        return write_missing(table, work, bundle, store, codec, encoder).written.tokens


def difference(
    table: ReviewTable, rows: NDArray[np.int64], bundle: Bundle, encoder: BatchEncoder, reference: BatchEncoder
) -> float:
    """The root mean square difference of two encoders' states, relative to those of ``reference``."""
    batches = list(token_batches(table.text, rows[:128], bundle.tokenizer()))

    def states(of: BatchEncoder) -> FloatMatrix:
        return np.concatenate([matrix for batch in batches for matrix in of.states(batch)])

    expected = states(reference)
    return float(np.sqrt(np.square(states(encoder) - expected).mean() / np.square(expected).mean()))


if __name__ == "__main__":
    main()
