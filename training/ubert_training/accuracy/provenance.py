"""Which version of this program's code computed a cell."""

import ast
import functools
import hashlib
from pathlib import Path

import ubert_model
import ubert_training

WITHOUT_EFFECT = (
    *(f"accuracy/{module}.py" for module in ("bench", "plots", "pooled_cells", "report", "reproduction", "summary")),
    "cli.py",
    "commands",
    "demo.py",
    *(f"evaluation/{module}.py" for module in ("figures", "markdown", "plots", "tier_report")),
    "export",
    "planning",
    "reviews",
    "running/timing.py",
)
"""Packages and modules that affect no prediction from a given review table."""


@functools.cache
def code_digest() -> str:
    """16 hexadecimal characters over the code that a rating depends on, without comments, docstrings and layout."""
    digest = hashlib.sha256()
    for package in (ubert_model, ubert_training):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            place = path.relative_to(root)
            if not any(place.is_relative_to(without) for without in WITHOUT_EFFECT):
                digest.update(f"{root.name}/{place.as_posix()}\n".encode())
                digest.update(_code(path.read_bytes()).encode())
    return digest.hexdigest()[:16]


def _code(source: bytes) -> str:
    """Not ``ast.dump``, whose output changes with almost every version of Python."""
    return ast.unparse(_WithoutDocstrings().visit(ast.parse(source)))


class _WithoutDocstrings(ast.NodeTransformer):
    """Removes constants that stand as a statement and so do nothing: docstrings, those of variables, and ``...``."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if isinstance(node.value, ast.Constant) else node
