"""The torch modules, about one file for each box of the paper's Figures 2 and 3.

Only here does ``ubert_model`` use torch.
"""
