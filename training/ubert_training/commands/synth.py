"""``ubert synth``: a synthetic corpus with planted truth."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ubert_training.commands.options import console
from ubert_training.corpora.synth import SynthOptions, write_corpus

DEFAULTS = SynthOptions()


def synth_command(
    out: Annotated[Path, typer.Option(help="Directory for the reviews, the item domains and the planted truth.")],
    users: Annotated[int, typer.Option(help="Number of users.")] = DEFAULTS.users,
    items: Annotated[int, typer.Option(help="Number of items.")] = DEFAULTS.items,
    reviews: Annotated[int, typer.Option(help="Approximate number of reviews.")] = DEFAULTS.reviews,
    domains: Annotated[int, typer.Option(help="Number of domains, which share their users.")] = DEFAULTS.domains,
    strength: Annotated[
        float, typer.Option(help="Effect on a rating of how well an item does in what the user cares about, in stars.")
    ] = DEFAULTS.strength,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same files.")] = DEFAULTS.seed,
    force: Annotated[bool, typer.Option("--force", help="Replace a corpus of other options at --out.")] = False,
) -> None:
    """Write a SYNTHETIC review corpus whose best reachable error is known.

    Its texts say what users care about and how well items do in it. Import it like real reviews.
    """
    options = SynthOptions(users=users, items=items, reviews=reviews, domains=domains, strength=strength, seed=seed)
    corpus = write_corpus(out, options, force=force)
    truth = json.loads(corpus.truth.read_text(encoding="utf-8"))
    console.print(f"{truth['reviews']:,} SYNTHETIC reviews in {corpus.reviews}, planted truth in {corpus.truth}")
    for name, error in truth["mse"].items():
        console.print(f"  MSE {error:.4f}  {name}: {truth['mse_means'][name]}")
    console.print(f"Next: ubert import {corpus.reviews} --item-domains {corpus.item_domains} --out DIR")
