from hypothesis import given
from hypothesis import strategies as st

from ubert_model.review import ReviewEntry
from ubert_service.reviews.rating_counts import RatingCounts


@given(ratings=st.lists(st.floats(1, 5), max_size=12))
def test_counts_hold_the_number_and_the_sum_of_ratings(ratings: list[float]) -> None:
    reviews = [
        ReviewEntry(review_id=str(place), user="u", item=str(place), rating=rating, timestamp=0, rows=3)
        for place, rating in enumerate(ratings)
    ]
    counts = RatingCounts.of(reviews)
    assert counts.count == len(ratings)
    assert counts.total == sum(ratings)
