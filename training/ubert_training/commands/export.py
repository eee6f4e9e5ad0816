"""`ubert export`."""

from pathlib import Path
from typing import Annotated

import typer

from ubert_training.commands import flags
from ubert_training.commands.options import console
from ubert_training.running.stage import read_stage


def export_command(
    run: flags.Run, out: Annotated[Path, typer.Option(help="Bundle directory; an older bundle there is replaced.")]
) -> None:
    """Write the bundle, all that the service needs: weights, tokenizer, ids, ONNX graphs, metrics, checksums."""
    read_stage(run)
    from ubert_training.export.make_bundle import export_bundle

    bundle = export_bundle(run, out)
    console.print(f"{out}: bundle {bundle.manifest.bundle_id}, {len(bundle.manifest.files)} files")
