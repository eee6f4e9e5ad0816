"""Encoder states outside the model: their byte format, their keys and the stores that hold them."""

from ubert_model.states.changes import Changes, Revision, entity_mark, state_mark
from ubert_model.states.checking import NamespaceCheck, check_namespace, repair_namespace
from ubert_model.states.codec import codec_names, decode_many, decode_states, encode_states
from ubert_model.states.copying import copy_namespace
from ubert_model.states.keys import MAX_IDENTIFIER_BYTES, Side, identifier_bytes, version_bytes
from ubert_model.states.opening import open_store
from ubert_model.states.review import FloatMatrix, ReviewEntry
from ubert_model.states.store import FinishedShard, Namespace, StateStore

__all__ = [
    "MAX_IDENTIFIER_BYTES",
    "Changes",
    "FinishedShard",
    "FloatMatrix",
    "Namespace",
    "NamespaceCheck",
    "ReviewEntry",
    "Revision",
    "Side",
    "StateStore",
    "check_namespace",
    "codec_names",
    "copy_namespace",
    "decode_many",
    "decode_states",
    "encode_states",
    "entity_mark",
    "identifier_bytes",
    "open_store",
    "repair_namespace",
    "state_mark",
    "version_bytes",
]
