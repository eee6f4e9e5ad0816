"""Figure 2 and 3, box *User Encoder*."""

from ubert_model.nn.entity_encoder import EntityEncoder


class UserEncoder(EntityEncoder):
    """û = Fuse(ũ, s) with s = Attn(ũ W, S, S): over one review in pre-training (Eq. 5–6), over all in Eq. 11."""
