"""The live bundle and its shadow, which may be promoted. They share a store, but no keys in it unless their encoder and
codec are the same.
"""

import logging
from dataclasses import dataclass, replace
from threading import Lock

from ubert_model.errors import ReviewNameTakenError
from ubert_service.errors import NoShadowError, NotReadyError, NotTheShadowError, UnknownReviewError
from ubert_service.read_version import ReadVersion
from ubert_service.resident.residents import Residents
from ubert_service.reviews.written_review import NewReview, WrittenReview
from ubert_service.serving.readiness import obstacles_to
from ubert_service.serving.served import ServedBundle

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """The bundle that answers, and the one only compared with it. A request keeps the roles of its arrival."""

    live: ServedBundle
    shadow: ServedBundle | None

    @property
    def loaded(self) -> list[ServedBundle]:
        """The loaded bundles, the live one first."""
        return [self.live] if self.shadow is None else [self.live, self.shadow]

    @property
    def write_tokens(self) -> int:
        """The most tokens that :meth:`add` encodes, for all bundles together."""
        shadow = self._shadow_to_write()
        written = [self.live] if shadow is None else [self.live, shadow]
        return sum(served.bundle.manifest.config.max_length for served in written)

    def add(self, review: NewReview) -> WrittenReview:
        """Write a review for both bundles, so that none is missing once the shadow is promoted. A shadow that is not
        ready, or has the id for another pair, is only logged.

        Raises as :meth:`ReviewWriter.add` does, of either bundle. If it was the shadow, the live bundle has the review
        by then; repeating the write completes it.
        """
        written = self.live.reviews.add(review, sharing=self._sharing())
        if (shadow := self._shadow_to_write()) is not None:
            entry = written.entry
            try:
                shadow.reviews.add(replace(review, timestamp=entry.timestamp), name=entry.review_id)
            except NotReadyError as error:
                _log.warning("a review was not written for the shadow bundle: %s", error)
            except ReviewNameTakenError:  # as after a removal that only the live bundle was ready for
                _log.warning("a review was not written for the shadow bundle: there its id is that of another pair")
        return written

    def remove(self, name: str, *, user: str, item: str) -> ReadVersion:
        """Remove a review for both bundles. Raises as :meth:`ReviewWriter.remove` does."""
        if (shadow := self._shadow_to_write()) is not None:
            # The shadow first: if this fails half-way, the caller can repeat it while the live bundle has the review.
            try:
                shadow.reviews.remove(name, user=user, item=item)
            except UnknownReviewError:
                _log.debug("the shadow bundle has no such review")
            except NotReadyError as error:
                _log.warning("a review was not removed for the shadow bundle: %s", error)
        revision = self.live.reviews.remove(name, user=user, item=item, sharing=self._sharing())
        return ReadVersion(self.live.namespace.version, revision)

    def _shadow_to_write(self) -> ServedBundle | None:
        """The shadow, unless it shares the live bundle's namespace, and so its writes."""
        return None if self._sharing() else self.shadow

    def _sharing(self) -> list[Residents]:
        """The shadow's residents if the live bundle's writes change what they hold."""
        if self.shadow is None or self.shadow.namespace != self.live.namespace:
            return []
        return [self.shadow.residents]


class Bundles:
    """Which bundle has which role now. One assignment changes both roles, so no request sees half a swap."""

    def __init__(self, live: ServedBundle, shadow: ServedBundle | None = None) -> None:
        self.roles = Roles(live=live, shadow=shadow)
        self._promoting = Lock()

    def promote(self, bundle_id: str | None = None) -> Roles:
        """Swap the live bundle and its shadow; promoting again swaps them back.

        ``bundle_id``: the bundle that is to be live; if it already is, nothing changes. One round trip to the store.
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
                    f"bundle {bundle_id} is not loaded: {live.bundle_id} is live and {shadow.bundle_id} is its shadow"
                )
            if obstacles := obstacles_to(shadow):
                raise NotReadyError("; ".join(map(str, obstacles)))
            self.roles = Roles(live=shadow, shadow=live)
            _log.warning("promoted: bundle %s is live now, %s is its shadow", shadow.bundle_id, live.bundle_id)
            return self.roles
