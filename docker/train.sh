#!/bin/sh
# train.sh REVIEWS WORK: from a folder of reviews (empty: those of `ubert demo`) to a bundle and states in the store.
# Every step continues where it was killed and leaves finished work alone, so this script remembers nothing: started
# again it does what is left. A step's other options come from the environment, as UBERT_FINETUNE_EPOCHS=5.
set -eu

reviews=${1:?REVIEWS WORK: give the folder of review files, which may be empty}
work=${2:?REVIEWS WORK: give the folder that keeps the tables, the runs and the bundle}
files=${UBERT_REVIEW_FILES:-*}  # which files of the folder to import, a pattern
store=${UBERT_STORE:?set it to the URL of the state store, as redis://redis:6379/0}
codec=${UBERT_CODEC:-int8}
preset=${UBERT_PRESET:-minilm}
device=${UBERT_DEVICE:-auto}
seed=${UBERT_SEED:-0}

if [ -f "$work/reviews/report.json" ]; then
    echo "reviews: $work/reviews is imported; files that came since count in a new folder, as $work/next"
else
    there=$(ls "$reviews") || {  # a folder that cannot be read is not an empty one
        echo "train.sh: $reviews must be a folder that user $(id -u) may read: chmod -R a+rX where it comes from" >&2
        exit 2
    }
    set -- "$reviews"/$files
    if [ -e "$1" ]; then
        ubert import "$@" --out "$work/reviews"
    elif [ -n "$there" ]; then
        echo "train.sh: UBERT_REVIEW_FILES=$files fits none of the files in $reviews: give another pattern" >&2
        exit 2
    else
        python "$(dirname "$0")/import_default_reviews.py" "$work" --out "$work/reviews"
    fi
fi

if [ -f "$work/bundle/manifest.json" ]; then
    echo "bundle: $work/bundle is there, nothing to train"
else
    split_seed="--seed $seed"
    [ "${UBERT_SPLIT_KIND:-random}" != time ] || split_seed=  # nothing is drawn
    ubert split --reviews "$work/reviews" --out "$work/split.parquet" $split_seed
    ubert pretrain --reviews "$work/reviews" --split "$work/split.parquet" --out "$work/pretrained" \
        --preset "$preset" --device "$device" --seed "$seed"
    ubert finetune --reviews "$work/reviews" --split "$work/split.parquet" --out "$work/finetuned" \
        --pretrained "$work/pretrained" --device "$device" --seed "$seed"
    ubert evaluate --reviews "$work/reviews" --run "$work/finetuned" --states "$work/states" --device "$device"
    ubert export --run "$work/finetuned" --out "$work/bundle"
fi

exec ubert precompute --reviews "$work/reviews" --bundle "$work/bundle" --store "$store" --codec "$codec" \
    --states "$work/states" --device "$device"
