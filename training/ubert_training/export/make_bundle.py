"""From a fine-tuned model to the bundle that the service opens (`ubert export`)."""

import json
import shutil
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

from ubert_model.bundle import (
    CODEBOOKS,
    DEVIATIONS,
    ENCODER_CONFIG,
    ENCODER_GRAPH,
    EXPLAINER_GRAPH,
    IDENTITIES,
    METRICS,
    SCORER_GRAPH,
    TEXT_READER,
    TOKENIZER,
    WEIGHTS,
    Bundle,
    Manifest,
    write_bundle,
)
from ubert_model.errors import InputError
from ubert_training.evaluation.evaluate import EVALUATION
from ubert_training.export.graphs import export_encoder, export_explainer, export_scorer
from ubert_training.finetuning.finetune import KIND
from ubert_training.finetuning.rating_parts import RatingParts
from ubert_training.finetuning.reader_fit import load_text_reader
from ubert_training.running.disk import translated_write_errors
from ubert_training.running.stage import finished_stage, refusing_damage
from ubert_training.states.state_bank import encoder_digest
from ubert_training.weights.model_files import load_model
from ubert_training.weights.saving import weights_of


def export_bundle(run: Path, bundle: Path) -> Bundle:
    """Write the bundle of a finished and evaluated ``finetune`` stage.

    Raises ``InputError`` if the stage is unfinished, has not been evaluated itself (a bundle contains the metrics) or
    has no codebooks; ``OSError`` if the disk is full or not writable.
    """
    files = load_model(run, KIND)
    stage = finished_stage(run, KIND)
    evaluation = run / EVALUATION
    if not evaluation.is_file():
        raise InputError(f"{run} has no {EVALUATION}; run `ubert evaluate` first, a bundle contains the metrics")
    metrics = evaluation.read_text(encoding="utf-8")
    with refusing_damage(evaluation, "run `ubert evaluate` again"):
        evaluated = json.loads(metrics).get("run")
    if evaluated != stage["fingerprint"]:
        raise InputError(f"{evaluation} is of another run; run `ubert evaluate` again")
    if not (run / CODEBOOKS).is_file():
        raise InputError(f"{run} has no {CODEBOOKS}, for the product codes; fine-tune again with a new directory")
    parts = RatingParts.load(run, files.config, files.identities)
    reader = load_text_reader(run, files.tokenizer_json)
    model = files.build_rating_model()
    encoder = model.review_encoder
    manifest = Manifest(
        config=files.config,
        state_dim=encoder.dim,
        encoder_digest=encoder_digest(encoder, files.tokenizer_json, files.config.max_length, projected=True),
        bias=parts.blend.bias,
        blend_weight=parts.blend.weight,
        intervals=parts.intervals,
        origin={"fingerprint": stage["fingerprint"], "table": stage["inputs"]["table"], "training": stage["summary"]},
    )

    def write_files(directory: Path) -> None:
        with translated_write_errors(bundle, OSError, SafetensorError):
            save_file(weights_of(model), directory / WEIGHTS)
            (directory / ENCODER_CONFIG).write_text(files.bert_config.to_json_string(), encoding="utf-8")
            (directory / TOKENIZER).write_text(files.tokenizer_json, encoding="utf-8")
            (directory / IDENTITIES).write_text(json.dumps(files.identities.to_json()), encoding="utf-8")
            (directory / METRICS).write_text(metrics, encoding="utf-8")
            shutil.copyfile(run / CODEBOOKS, directory / CODEBOOKS)
            reader.save(directory / TEXT_READER)
            parts.deviations.save(directory / DEVIATIONS)
            export_encoder(model, directory / ENCODER_GRAPH)
            export_scorer(model, directory / SCORER_GRAPH)
            export_explainer(model, directory / EXPLAINER_GRAPH)

    return write_bundle(bundle, manifest, write_files)
