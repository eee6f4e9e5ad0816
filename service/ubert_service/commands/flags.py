"""Flags that several commands of the service have."""

from pathlib import Path
from typing import Annotated

import typer

from ubert_model.states import url_or_content
from ubert_service.settings import Device, RuntimeChoice

BundleFlag = Annotated[Path, typer.Option(envvar="UBERT_BUNDLE", help="Directory written by `ubert export`.")]
StoreFlag = Annotated[
    str,
    typer.Option(
        envvar="UBERT_STORE",
        callback=url_or_content,
        help="redis://HOST:PORT/DB, redis+cluster://NODE,NODE, redis+sentinel://SENTINEL,SENTINEL/NAME, "
        "lmdb:DIRECTORY, or file:PATH of a file with one of these.",
    ),
]
CodecFlag = Annotated[str, typer.Option(envvar="UBERT_CODEC", help="Codec that the states were precomputed with.")]
DeviceFlag = Annotated[
    Device, typer.Option(envvar="UBERT_DEVICE", help="cuda: fail if no GPU works; auto: fall back to the CPU.")
]
RuntimeFlag = Annotated[
    RuntimeChoice, typer.Option(envvar="UBERT_RUNTIME", help="What scores; auto: the fastest, measured at start.")
]
