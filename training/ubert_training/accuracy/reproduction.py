"""The paper's experiments as commands of this program, and the paper's numbers (its Table 2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ubert_model.validation import require

UBERT, PLAIN = "U-BERT", "U-BERT P−"
METHODS = ("PMF", "SVD++", "HFT", "DeepCoNN", "RMG", "NARRE", "AHN", "DAML", PLAIN, UBERT)
"""Columns of Table 2."""
PRETRAINING_DEPARTMENTS = ("Books", "CDs_and_Vinyl", "Cell_Phones_and_Accessories", "Electronics", "Video_Games")
"""The Amazon departments that the paper pre-trains on."""
PLACEHOLDER = Path("FOLDER")
RUNS: Mapping[str, str] = MappingProxyType({UBERT: "finetuned", PLAIN: "finetuned-without-pretraining"})
"""Directories of the two models that are compared."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One data set. ``files`` have their publishers' names, that of the target domain comes first.

    ``paper``: MSE by method, in the order of :data:`METHODS`; None for a set that is not in the paper. ``notes`` say
    what differs from it.
    """

    files: Sequence[str]
    target: str | None
    paper: Sequence[float] | None
    domains: Sequence[str] = ()
    business: str | None = None
    core: int = 0
    preset: str = "paper"
    finetuning: Sequence[str] = ("--mode", "end-to-end")
    notes: Sequence[str] = ()

    def sources(self, reviews: Sequence[Path]) -> list[Path]:
        """The files to read: those of a folder, or as given. Raises ``ConfigError`` for a wrong number of files."""
        if not reviews or (len(reviews) == 1 and (reviews[0].is_dir() or reviews[0] == PLACEHOLDER)):
            folder = reviews[0] if reviews else PLACEHOLDER
            return [folder / name for name in self.needed]
        needed = ", ".join(self.needed)
        fits = len(reviews) == len(self.needed)
        require(fits, "reviews", " ".join(map(str, reviews)), f"give the folder with, or in this order: {needed}")
        return list(reviews)

    @property
    def needed(self) -> tuple[str, ...]:
        """Names of all files."""
        return (*self.files, self.business) if self.business else tuple(self.files)


def amazon(department: str, paper: Sequence[float], finetuning: Sequence[str] = ("--mode", "end-to-end")) -> Experiment:
    """A department of the Amazon reviews of 2014, as its published 5-core; another core would be another set."""
    departments = (department, *PRETRAINING_DEPARTMENTS)
    return Experiment(
        files=[f"reviews_{name}_5.json.gz" for name in departments],
        domains=departments,
        target=department,
        paper=paper,
        finetuning=finetuning,
        notes=(
            "The paper does not say whether its pre-training reviews are 5-cores, too; the published 5-cores are read.",
            "Batch sizes and epochs are not in the paper: they are this program's defaults.",
        ),
    )


EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {
        "office": amazon(
            "Office_Products", (0.8742, 0.8334, 0.8219, 0.7139, 0.7115, 0.6961, 0.6985, 0.7003, 0.6864, 0.6774)
        ),
        "video": amazon(
            "Amazon_Instant_Video", (1.8712, 0.9714, 0.9318, 0.9116, 0.9048, 0.8894, 0.8889, 0.8997, 0.8874, 0.8750)
        ),
        "music": amazon(
            "Digital_Music",
            (1.3856, 0.9266, 0.9094, 0.8223, 0.8242, 0.8012, 0.7992, 0.7916, 0.7921, 0.7723),
            ("--mode", "end-to-end", "--max-length", "300"),  # its reviews are longer, says the paper
        ),
        "toys": amazon(
            "Toys_and_Games", (1.3147, 0.9173, 0.8330, 0.8084, 0.8112, 0.8013, 0.7981, 0.8043, 0.7923, 0.7823)
        ),
        "kindle": amazon(
            "Kindle_Store", (0.8934, 0.7462, 0.6894, 0.6159, 0.6139, 0.6138, 0.6140, 0.6125, 0.6101, 0.5912)
        ),
        "yelp": Experiment(
            files=["yelp_academic_dataset_review.json"],
            business="yelp_academic_dataset_business.json",
            target="Restaurants",
            core=5,
            paper=(1.7442, 1.6697, 1.6780, 1.6359, 1.6341, 1.6223, 1.6271, 1.6239, 1.6123, 1.5907),
            notes=(
                "The paper takes the restaurants of Arizona; here a business is of its first category, wherever it is.",
                "The 5-core is one over all categories.",
                "Batch sizes and epochs are not in the paper: they are this program's defaults.",
            ),
        ),
        "music-instruments": Experiment(
            files=["reviews_Musical_Instruments_5.json.gz"],
            target=None,
            paper=None,
            preset="minilm",
            finetuning=(),
            notes=("Not in the paper; the set and preset that fit a laptop.",),
        ),
    }
)


def commands(experiment: Experiment, reviews: Sequence[Path], out: Path, preset: str | None = None) -> list[list[str]]:
    """Arguments of ``ubert``, command by command; each may be run again after a kill. ``preset`` replaces the
    experiment's.
    """
    files = experiment.sources(reviews)
    imported = ["import", *map(str, files[: len(experiment.files)]), "--out", str(out / "reviews")]
    imported += ["--core", str(experiment.core)]
    for domain in experiment.domains:
        imported += ["--domain", domain]
    if experiment.business:
        imported += ["--yelp-business", str(files[-1])]
    split = out / "split.parquet"
    table = ["--reviews", str(out / "reviews")]
    corpus = ["--corpus", "other-domains"] if experiment.target else []
    chosen = ["--preset", preset or experiment.preset]
    pretrained = ["--pretrained", str(out / "pretrained")]
    return [
        imported,
        ["split", *table, "--out", str(split), *(["--target", experiment.target] if experiment.target else [])],
        ["pretrain", *table, "--split", str(split), "--out", str(out / "pretrained"), *corpus, *chosen],
        *(
            step
            for method, more in ((UBERT, pretrained), (PLAIN, chosen))
            for step in _model(table, split, out / RUNS[method], [*more, *experiment.finetuning])
        ),
    ]


def _model(table: list[str], split: Path, run: Path, more: list[str]) -> list[list[str]]:
    states = ["--states", str(run.with_name(f"{run.name}-states"))]
    cached = [] if "end-to-end" in more else states
    return [
        ["finetune", *table, "--split", str(split), "--out", str(run), *more, *cached],
        ["evaluate", *table, "--run", str(run), *states],
    ]
