#!/bin/sh
# The study's rows with VGG16 from ImageNet, honest and replayed, one run after another.
#
#   sh docs/measurements/study_queue.sh cpu        # seed 0 first, then further seeds; hours to days on two cores
#   sh docs/measurements/study_queue.sh gpu 0,1,2  # every row with these seeds
#
# Prepare first: facebench data prepare UTKFace.tar.gz; facebench weights add vgg16_weights_…_notop.h5.
# It may be stopped and started again: what is finished is skipped, what was begun resumes. After each
# run, what is text of its folder is packed under $OUT (no pictures, no weights).
#
# DATASET (utkface-100), OUT (packed), FACEBENCH_DATA_DIR, FACEBENCH_RUNS_DIR, FACEBENCH (facebench),
# OPTIONS: further options of `facebench run`; a trial: OPTIONS="--set recipe.max_epochs=1"
set -u
where=${1:-cpu}
seeds=${2:-0}
dataset=${DATASET:-utkface-100}
out=${OUT:-packed}
runs=${FACEBENCH_RUNS_DIR:-mlruns}
mkdir -p "$out"
out=$(cd "$out" && pwd)

pack() (
    cd "$runs/work" 2>/dev/null || return 0
    for done in */done.json; do
        [ -f "$done" ] || continue
        name=$(dirname "$done")
        [ -f "$out/$name.tar.gz" ] && continue
        tar -czf "$out/$name.part" "$name"/*.json "$name"/*.csv && mv "$out/$name.part" "$out/$name.tar.gz"
    done
)

run() { # names seeds
    # A row that fails is said by facebench and by its exit code; the next row goes on.
    # shellcheck disable=SC2086
    ${FACEBENCH:-facebench} run $1 --seeds "$2" --dataset "$dataset" --offline ${OPTIONS:-} ||
        echo "$1 with seeds $2: exit code $?"
    pack
}

mtl=mtl-vgg16-imagenet
alone="age_group-vgg16-imagenet-block5 gender-vgg16-imagenet-block5 race-vgg16-imagenet-block5"
conditioned="$mtl-block5-embedding $mtl-block5-gate $mtl-block5-attention"
cnn="mtl-cnn-none-full mtl-cnn-none-full-embedding mtl-cnn-none-full-gate mtl-cnn-none-full-attention"

if [ "$where" = gpu ]; then
    run "$mtl-block5 $mtl-block5-published" "$seeds"
    run "$mtl-frozen $alone $conditioned" "$seeds"
    run "$mtl-full $mtl-full-published" "$seeds"
    run "age_group-vgg16-imagenet-full gender-vgg16-imagenet-full race-vgg16-imagenet-full" "$seeds"
    run "$cnn" "$seeds"
else
    run "$mtl-block5" 0
    run "$mtl-block5-published" 0
    run "$mtl-frozen" 0,1,2
    for name in $alone $conditioned $cnn; do run "$name" 0; done
    for name in $mtl-block5 $alone; do run "$name" 1,2; done
    run "$mtl-full" 0
fi
