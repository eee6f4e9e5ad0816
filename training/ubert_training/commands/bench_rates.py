"""`ubert bench rates`."""

import json
import shlex
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ubert_model.bundle import Bundle
from ubert_model.running.atomic import write_text
from ubert_model.validation import require
from ubert_training.commands import flags
from ubert_training.commands.options import console, load_reviews, require_file

REVIEWS_SAMPLED = 512


def bench_rates_command(
    reviews: flags.Reviews,
    bundle: Annotated[Path, typer.Option(help="Bundle directory that `ubert export` wrote.")],
    out: Annotated[Path, typer.Option(help="JSON file to write, for `ubert plan --rates`.")],
) -> None:
    """Measure how fast one core of this machine encodes and scores with your bundle, for `ubert plan --rates`."""
    require_file("out", out)
    table = load_reviews(reviews)
    with_text = [text for text in table.text if text.strip()]
    require(bool(with_text), "reviews", str(reviews), "give reviews of which at least one has text")
    sample = np.random.default_rng(0).permutation(len(with_text))[:REVIEWS_SAMPLED]
    opened = Bundle.load(bundle)
    from ubert_training.planning.measured_rates import encode_tokens_per_core, score_flops_per_core

    rates = {
        "encode_tokens_per_core": round(encode_tokens_per_core(opened, [with_text[row] for row in sample.tolist()])),
        "score_flops_per_core": round(score_flops_per_core(opened)),
    }
    write_text(out, json.dumps(rates, indent=2) + "\n")
    for name, value in rates.items():
        console.print(f"{name}: {value:.3g} a second")
    console.print(f"{out}: for ubert plan {shlex.join(['--rates', str(out), *_plan_flags(opened)])}")


def _plan_flags(bundle: Bundle) -> list[str]:
    """What the rates were measured with and ``ubert plan`` cannot know."""
    config = bundle.manifest.config
    values = {
        "--state-dim": bundle.manifest.state_dim,
        "--tokens-a-row": config.tokens_a_row,
        "--max-reviews": config.max_reviews,
        "--max-rows": config.max_rows,
    }
    return [part for name, value in values.items() for part in (name, str(value))]
