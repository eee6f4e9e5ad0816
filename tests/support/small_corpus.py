"""A few hundred invented reviews, enough to exercise every stage."""

import numpy as np

from ubert_training.reviews.table import Review, ReviewTable

OPINIONS = {
    1: "terrible junk",
    2: "disappointing and weak",
    3: "decent",
    4: "good and solid",
    5: "excellent, I love it",
}
THINGS = ("strings", "pedal", "cable", "stand", "tuner", "microphone")


def small_table(*, users: int = 24, items: int = 10, domains: int = 2, seed: int = 0) -> ReviewTable:
    """Each user reviews about half of the items; ratings and texts depend on the item's quality and the user's mood."""
    rng = np.random.default_rng(seed)
    mood, quality = rng.normal(0, 0.6, users), rng.normal(0, 0.8, items)
    reviews = []
    for user in range(users):
        for item in np.sort(rng.permutation(items)[: items // 2 + 1]).tolist():
            rating = int(np.clip(np.round(3.6 + mood[user] + quality[item] + rng.normal(0, 0.5)), 1, 5))
            thing = THINGS[item % len(THINGS)]
            text = f"The {thing} number {item} is {OPINIONS[rating]}. Bought by {user} for the band."
            reviews.append(
                Review(
                    user=f"user-{user:02}",
                    item=f"item-{item:02}",
                    rating=float(rating),
                    text=text if rng.random() > 0.03 else "",
                    domain=f"domain-{item % domains}",
                    timestamp=1_300_000_000 + int(rng.integers(0, 1000)) * 86_400,
                )
            )
    return ReviewTable.of(reviews)
