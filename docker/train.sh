#!/bin/sh
# train.sh REVIEWS WORK: from a folder of reviews to a bundle and states in the store. If the folder is empty, the first
# training, and with UBERT_DEMO set any, uses the reviews of `ubert demo`.
# Every step resumes where it was killed (evaluation begins anew) and skips finished work, so this script keeps no state:
# run again, it does what is left. A step's other options come from the environment, such as UBERT_FINETUNE_EPOCHS=5.
set -eu

reviews=${1:?REVIEWS WORK: give the folder of review files, which may be empty}
work=${2:?REVIEWS WORK: give the folder that keeps the tables, the runs and the bundle}
files=${UBERT_REVIEW_FILES:-*}  # which files of the folder to import: a glob pattern
store=${UBERT_STORE:?set it to the URL of the state store, such as redis://redis:6379/0}
codec=${UBERT_CODEC:-int8}
preset=${UBERT_PRESET:-minilm}
device=${UBERT_DEVICE:-auto}
seed=${UBERT_SEED:-0}

train() {
    status=0
    ubert "$@" || status=$?
    if [ $status = 2 ]; then  # refused
        echo "train.sh: to train with other settings (UBERT_SEED, UBERT_PRESET, ...) use a new folder such as $work/next" >&2
    fi
    [ $status = 0 ] || exit $status
}

if [ -f "$work/reviews/report.json" ]; then
    echo "reviews: $work/reviews is already imported; to add new files, train in a new folder such as $work/next"
else
    listing=$(ls "$reviews") || {  # a folder that cannot be read must not pass for an empty one
        echo "train.sh: user $(id -u) must be able to read the folder $reviews: chmod -R a+rX it on the host" >&2
        exit 2
    }
    set -- "$reviews"/$files
    if [ -e "$1" ]; then
        ubert import "$@" --out "$work/reviews"
    elif [ -n "$listing" ]; then
        echo "train.sh: UBERT_REVIEW_FILES=$files matches none of the files in $reviews: give another pattern" >&2
        exit 2
    else
        volume=$(dirname "$work")  # holds the folders of other trainings
        earlier=$(ls "$volume/reviews/report.json" "$volume"/*/reviews/report.json 2>/dev/null) || :
        if [ -n "$earlier" ] && [ -z "${UBERT_DEMO:-}" ]; then
            echo "train.sh: $reviews is empty, and this is not the first training: mount the folder of review files there" \
                "(UBERT_REVIEWS), or set UBERT_DEMO=1 to train on the reviews of the demo" >&2
            exit 2
        fi
        python "$(dirname "$0")/import_default_reviews.py" "$work" --out "$work/reviews"
    fi
fi

if [ -f "$work/bundle/manifest.json" ]; then
    echo "bundle: $work/bundle exists, nothing to train; if this version of u-bert refuses its format, train in a new" \
        "folder such as $work/next (README, Upgrading)"
else
    split_seed="--seed $seed"
    [ "${UBERT_SPLIT_KIND:-random}" != time ] || split_seed=  # a split by time has no seed
    train split --reviews "$work/reviews" --out "$work/split.parquet" $split_seed
    train pretrain --reviews "$work/reviews" --split "$work/split.parquet" --out "$work/pretrained" \
        --preset "$preset" --device "$device" --seed "$seed"
    train finetune --reviews "$work/reviews" --split "$work/split.parquet" --out "$work/finetuned" \
        --pretrained "$work/pretrained" --device "$device" --seed "$seed"
    ubert evaluate --reviews "$work/reviews" --run "$work/finetuned" --states "$work/states" --device "$device"
    ubert export --run "$work/finetuned" --out "$work/bundle"
fi

exec ubert precompute --reviews "$work/reviews" --bundle "$work/bundle" --store "$store" --codec "$codec" \
    --states "$work/states" --device "$device"
