"""Encoder states outside the model: their byte format, their keys and the stores that hold them."""

from ubert_model.states.changes import Changes, Revision, entity_mark, marks_of, state_mark
from ubert_model.states.checking import DamagedList, NamespaceCheck, check_namespace
from ubert_model.states.codec import DEFAULT_CODEC, StateCodec, codec_names, make_codec, require_codec, state_shape
from ubert_model.states.copying import copy_candidate_sets, copy_namespace
from ubert_model.states.keys import version_bytes
from ubert_model.states.leases import NamespaceLeases
from ubert_model.states.numpy_threads import numpy_in_one_thread
from ubert_model.states.opening import (
    absolute_url,
    holds_store,
    open_existing_store,
    open_store,
    url_or_content,
    without_password,
)
from ubert_model.states.pooling import FloatMatrix
from ubert_model.states.records import REPAIR_REMEDY
from ubert_model.states.repair import NamespaceRepair, repair_namespace
from ubert_model.states.store import FinishedShard, MaintenanceStore, Namespace, StateStore

__all__ = [
    "DEFAULT_CODEC",
    "REPAIR_REMEDY",
    "Changes",
    "DamagedList",
    "FinishedShard",
    "FloatMatrix",
    "MaintenanceStore",
    "Namespace",
    "NamespaceCheck",
    "NamespaceLeases",
    "NamespaceRepair",
    "Revision",
    "StateCodec",
    "StateStore",
    "absolute_url",
    "check_namespace",
    "codec_names",
    "copy_candidate_sets",
    "copy_namespace",
    "entity_mark",
    "holds_store",
    "make_codec",
    "marks_of",
    "numpy_in_one_thread",
    "open_existing_store",
    "open_store",
    "repair_namespace",
    "require_codec",
    "state_mark",
    "state_shape",
    "url_or_content",
    "version_bytes",
    "without_password",
]
