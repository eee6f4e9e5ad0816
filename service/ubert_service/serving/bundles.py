"""The bundle that answers and the one beside it that may answer next. They share a store, and no key in it unless their
encoder and codec are the same.
"""

import logging
from dataclasses import dataclass, replace
from threading import Lock

from ubert_service.errors import NoShadowError, NotReadyError, NotTheShadowError, UnknownReviewError
from ubert_service.read_version import ReadVersion
from ubert_service.reviews.written_review import NewReview, WrittenReview
from ubert_service.serving.readiness import obstacles_to
from ubert_service.serving.served import ServedBundle

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Who answers, and who is only compared with it. A request keeps to the roles of the moment it came."""

    live: ServedBundle
    shadow: ServedBundle | None

    @property
    def loaded(self) -> list[ServedBundle]:
        """Both, as far as there are two."""
        return [self.live] if self.shadow is None else [self.live, self.shadow]

    def add(self, review: NewReview) -> WrittenReview:
        """Write a review for both, so that nothing is lacking after the shadow was promoted.

        Raises as :meth:`ReviewBook.add` does.
        """
        written = self.live.reviews.add(review)
        if (other := self._other_namespace()) is not None:
            entry = written.entry
            try:
                other.reviews.add(replace(review, timestamp=entry.timestamp), name=entry.review_id)
            except NotReadyError as error:
                _log.warning("not written for the shadow bundle: %s", error)
        return written

    def remove(self, name: str, *, user: str, item: str) -> ReadVersion:
        """Remove a review for both. Raises as :meth:`ReviewBook.remove` does."""
        if (other := self._other_namespace()) is not None:
            # First: a removal that fails half-way is asked for again as long as the live bundle has the review.
            try:
                other.reviews.remove(name, user=user, item=item)
            except UnknownReviewError:
                _log.debug("the shadow bundle has no such review")
            except NotReadyError as error:
                _log.warning("not removed for the shadow bundle: %s", error)
        revision = self.live.reviews.remove(name, user=user, item=item)
        return ReadVersion(self.live.namespace.version, revision)

    def _other_namespace(self) -> ServedBundle | None:
        """The shadow, if a write for the live bundle is not one for it, too."""
        if self.shadow is None or self.shadow.namespace == self.live.namespace:
            return None
        return self.shadow


class Bundles:
    """Who has which role now. One assignment changes both, so no request ever sees half of it."""

    def __init__(self, live: ServedBundle, shadow: ServedBundle | None = None) -> None:
        self.roles = Roles(live=live, shadow=shadow)
        self._promoting = Lock()

    def promote(self, bundle_id: str | None = None) -> Roles:
        """The shadow answers from now on, and what has answered becomes the shadow; promoting again takes it back.

        ``bundle_id`` names the one that is to answer: where it does already, nothing changes. Asks the store once.
        Raises ``NoShadowError``, ``NotTheShadowError``, and ``NotReadyError`` for a shadow that could not answer.
        """
        with self._promoting:
            live, shadow = self.roles.live, self.roles.shadow
            if bundle_id == live.bundle_id:
                return self.roles
            if shadow is None:
                raise NoShadowError("there is no shadow bundle to promote; start the service with --shadow-bundle")
            if bundle_id not in (None, shadow.bundle_id):
                raise NotTheShadowError(
                    f"bundle {bundle_id} is not here: {live.bundle_id} answers and {shadow.bundle_id} is its shadow"
                )
            if obstacles := obstacles_to(shadow):
                raise NotReadyError("; ".join(map(str, obstacles)))
            self.roles = Roles(live=shadow, shadow=live)
            _log.warning("bundle %s answers from now on, %s is its shadow", shadow.bundle_id, live.bundle_id)
            return self.roles
