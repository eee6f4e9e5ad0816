"""Readiness: whether a bundle can be served now, and if not, or only in part, why and what to do about it."""

from ubert_model.errors import StateError, StoreError
from ubert_service.reading.namespaces import absence_of
from ubert_service.schemas import NotReadyReason
from ubert_service.serving.served import ServedBundle

STORE_REMEDY = "make the state store usable again, as the detail says"


def obstacles_to(served: ServedBundle) -> list[NotReadyReason]:
    """What keeps a bundle from being served now. One round trip to the store; the device is checked in the background.

    A store that is away is no obstacle if the residents could stand in for it when the check began. If they no longer
    can when it fails, the store has answered meanwhile, as after a failover, and they were invalidated.
    """
    return [*_of_device(served), *(_of_store(served) or _of_warming(served))]


def obstacles_on_timeout(served: ServedBundle, found: str) -> list[NotReadyReason]:
    """What keeps it from being served if the store does not answer in time. ``found`` describes that; why the store
    does not answer, if a poll in the background has learned it, says more.
    """
    if served.residents.can_stand_in:
        return [*_of_device(served), *_of_warming(served)]
    away = served.residents.follower.away
    remedy = "check that the state store is up and not overloaded" if away is None else STORE_REMEDY
    return [*_of_device(served), NotReadyReason(check="store", found=away or found, remedy=remedy)]


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


def _of_device(served: ServedBundle) -> list[NotReadyReason]:
    failure = served.device_check.failure
    if failure is None:
        return []
    return [
        NotReadyReason(check="device", found=failure, remedy="if this lasts, restart the service once the GPU works")
    ]


def _of_store(served: ServedBundle) -> list[NotReadyReason]:
    could_stand_in = served.residents.can_stand_in
    try:
        namespaces = served.store.namespaces()
    except (StoreError, StateError) as error:
        if could_stand_in:
            return []
        return [NotReadyReason(check="store", found=str(error), remedy="start the state store, or correct --store")]
    absence = absence_of(served.namespace, namespaces)
    if absence is None:
        return []
    command = (
        f"ubert precompute --reviews DIR --bundle {served.bundle.path} --store URL --codec {served.namespace.codec}"
    )
    return [NotReadyReason(check="states", found=absence.found, remedy=f"{absence.remedy}, or {command}")]


def _of_warming(served: ServedBundle) -> list[NotReadyReason]:
    if served.keeper.warming is None:
        return []
    return [NotReadyReason(check="residents", found=served.keeper.warming, remedy="wait, or lower --warm-seconds")]
