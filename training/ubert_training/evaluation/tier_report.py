"""The report of ``ubert bench states``: for the terminal, as JSON, as Markdown and as a plot."""

import json
from pathlib import Path

from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from ubert_model.running.atomic import write_text
from ubert_training.evaluation.figures import save_figure
from ubert_training.evaluation.markdown import markdown_table
from ubert_training.evaluation.state_tiers import LARGEST_CHANGE, Tier, TierReport
from ubert_training.running.digests import plain

REPORT = "states"
COLUMNS = (
    "D",
    "codec",
    "bytes a token",
    "bytes a review",
    "fp32 at D / this",
    "fp32 at full width / this",
    "MSE",
    "change of MSE, 95% interval",
    "rating moves (RMS, most)",
    "reviews decoded/s",
    "pairs rated/s",
)


def tier_table(report: TierReport) -> Table:
    """What decides between the tiers, in 80 columns; those whose change is surely small in bold.

    ``1 in``: fp32's bytes over this codec's. ``moves``: how far a rating moves, in stars, root mean square.
    """
    table = Table(title=_title(report), box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("D", "codec", "B/token", "1 in", "change of MSE, 95%", "moves", "pairs/s"):
        table.add_column(column, justify="left" if column == "codec" else "right", no_wrap=True)
    for tier in report.tiers:
        change = tier.change
        table.add_row(
            str(tier.state_dim),
            tier.codec,
            f"{tier.bytes_a_token:.1f}",
            f"{tier.ratio_same_dim:.1f}",
            f"{change.value:+.2%} [{change.low:+.2%}, {change.high:+.2%}]",
            f"{tier.typical_difference:.4f}",
            f"{tier.pairs_rated_a_second:,.0f}",
            style="bold" if tier.small_change else None,
        )
    return table


def verdict(report: TierReport) -> list[str]:
    """Which codec the measurement recommends, for each dimension."""
    return [_verdict(report, dim) for dim in dict.fromkeys(tier.state_dim for tier in report.tiers)]


def _verdict(report: TierReport, dim: int) -> str:
    if not any(tier.largest_difference for tier in report.tiers if tier.state_dim == dim):
        return f"D = {dim}: no codec moves any rating, since the network has no share in them: the biases alone rate"
    tier = report.smallest(dim)
    return (
        f"D = {dim}: {tier.codec} is the smallest codec whose change of MSE is surely below {LARGEST_CHANGE:.1%} "
        f"({_change(tier)}), at 1/{tier.ratio_same_dim:.1f} of fp32's bytes"
    )


def write_report(report: TierReport, directory: Path) -> list[Path]:
    """``states.json``, ``states.md`` and ``states.png``."""
    paths = [directory / f"{REPORT}{suffix}" for suffix in (".json", ".md", ".png")]
    write_text(paths[0], json.dumps(plain(report), indent=2, ensure_ascii=False) + "\n")
    write_text(paths[1], _markdown(report))
    _plot(report, paths[2])
    return paths


def _title(report: TierReport) -> str:
    return (
        f"{report.pairs:,} {report.part} pairs of {len(report.runs)} run(s), {report.reviews:,} reviews of "
        f"{report.tokens_a_review:.1f} tokens"
    )


def _cells(tier: Tier) -> tuple[str, ...]:
    return (
        str(tier.state_dim),
        tier.codec,
        f"{tier.bytes_a_token:.1f}",
        f"{tier.bytes_a_review:,.0f}",
        f"{tier.ratio_same_dim:.1f}",
        f"{tier.ratio_full_width:.1f}",
        f"{tier.mse:.5f}",
        _change(tier),
        f"{tier.typical_difference:.4f}, {tier.largest_difference:.3f}",
        f"{tier.reviews_decoded_a_second:,.0f}",
        f"{tier.pairs_rated_a_second:,.0f}",
    )


def _change(tier: Tier) -> str:
    change = tier.change
    return f"{change.value:+.3%} [{change.low:+.3%}, {change.high:+.3%}]"


def _markdown(report: TierReport) -> str:
    table = markdown_table(COLUMNS, map(_cells, report.tiers))
    return f"{_title(report)}:\n\n{table}\n\n" + "\n".join(f"- {line}" for line in verdict(report)) + "\n"


def _plot(report: TierReport, path: Path) -> None:
    """Change of MSE with its interval, over bytes per token."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    for number, dim in enumerate(dict.fromkeys(tier.state_dim for tier in report.tiers)):
        tiers = [tier for tier in report.tiers if tier.state_dim == dim]
        change = [100 * tier.change.value for tier in tiers]
        bars = [[100 * tier.change.error_bar[side] for tier in tiers] for side in (0, 1)]  # below, above
        sizes = [tier.bytes_a_token for tier in tiers]
        axes.errorbar(sizes, change, yerr=bars, fmt="o", capsize=3, color=f"C{number}", label=f"D = {dim}")
        for tier in tiers:
            place = (tier.bytes_a_token, 100 * tier.change.high)
            axes.annotate(tier.codec, place, rotation=60, fontsize=7, textcoords="offset points", xytext=(0, 4))
    axes.axhline(100 * LARGEST_CHANGE, color="0.5", linestyle="--")
    axes.set_xscale("log", base=2)
    axes.set_xlabel("bytes a token, everything included")
    axes.set_ylabel("change of MSE against fp32 states, %, 95% interval")
    axes.legend()
    save_figure(figure, path)
