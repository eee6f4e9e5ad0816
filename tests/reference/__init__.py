"""The paper in numpy, one function an equation, for one pair and one review at a time and without padding.

Slow and plain on purpose: float64, real rows only, no batch. So it knows no masks, and agreement with it shows
that the masks of the torch modules change nothing. Weights come as a mapping of ``state_dict`` names to arrays;
a linear layer's matrix is stored (out, in), the transpose of the paper's W.
"""
