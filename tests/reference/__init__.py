"""The paper in numpy: one function for each equation, for one pair and one review at a time.

Deliberately slow and plain: float64, no batch, no padding, and so no masks. Agreement with it therefore shows that the
masks of the torch modules change nothing. Weights are a mapping from ``state_dict`` names to arrays; a linear layer's
matrix is stored (out, in), the transpose of the paper's W.
"""
