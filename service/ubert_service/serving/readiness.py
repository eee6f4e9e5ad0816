"""Readiness: whether a bundle can be served now, and if not, or only in part, why and what to do about it."""

from dataclasses import dataclass

from ubert_model.errors import DeviceUnavailableError, StateError, StoreError
from ubert_service.reading.namespaces import absence_of
from ubert_service.serving.served import ServedBundle


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """Why the service is not ready: what was checked, what was found, and what to do about it."""

    check: str
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.found} ({self.remedy})"


def obstacles_to(served: ServedBundle) -> list[Obstacle]:
    """What keeps a bundle from being served now. One round trip to the store.

    A store that is away is no obstacle if the residents could stand in for it when the check began. If they no longer
    can when it fails, the store has answered meanwhile, as after a failover, and they were invalidated.
    """
    return [*_of_device(served), *(_of_store(served) or _of_warming(served))]


def obstacles_on_timeout(served: ServedBundle, found: str) -> list[Obstacle]:
    """What keeps it from being served if the store does not answer in time; ``found`` describes that."""
    if served.residents.can_stand_in:
        return []
    return [Obstacle(check="store", found=found, remedy="check that the state store is up and not overloaded")]


def degradation_of(served: ServedBundle) -> str | None:
    """Why some requests cannot be answered while others can: the store, or a server of it, is away. Else None.

    One round trip to each server of the store.
    """
    if served.residents.away is not None:
        return served.residents.away
    try:
        served.store.ping()
    except StoreError as error:
        return str(error)
    return None


def _of_device(served: ServedBundle) -> list[Obstacle]:
    try:
        served.runtime.device()
        served.encoder.device()
    except DeviceUnavailableError as error:
        return [Obstacle(check="device", found=str(error), remedy="restart the service once the GPU works")]
    return []


def _of_store(served: ServedBundle) -> list[Obstacle]:
    could_stand_in = served.residents.can_stand_in
    try:
        namespaces = served.store.namespaces()
    except (StoreError, StateError) as error:
        if could_stand_in:
            return []
        return [Obstacle(check="store", found=str(error), remedy="start the state store, or correct --store")]
    absence = absence_of(served.namespace, namespaces)
    if absence is None:
        return []
    return [
        Obstacle(
            check="states",
            found=absence,
            remedy=f"ubert precompute --bundle {served.bundle.path} --store URL --codec {served.namespace.codec}",
        )
    ]


def _of_warming(served: ServedBundle) -> list[Obstacle]:
    if served.keeper.warming is None:
        return []
    return [Obstacle(check="residents", found=served.keeper.warming, remedy="wait, or lower --warm-seconds")]
