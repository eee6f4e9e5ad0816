"""Figure 3, box *Item Encoder*."""

from ubert_model.nn.entity_encoder import EntityEncoder


class ItemEncoder(EntityEncoder):
    """î = Fuse(ĩ, ŝ) with ŝ = Attn(ĩ W, Ŝⁱ, Ŝⁱ), Eq. 11 for the item; its weights are its own."""
