#!/bin/sh
# What docs/PERFORMANCE.md has no number for yet on a GPU, in one go and in the order of need; on one
# H100 some seven minutes for the first answers, and twelve for the runs. `utkface-100` is
# prepared, its sample of 4,000 faces drawn and SqueezeNet's weights added (README); no other weights
# are needed, and nothing else should run. Answers go to the folder given as the first argument.
#
#     sh docs/measurements/rest_of_the_gpu_column.sh answers
set -u
out=${1:?a folder for the answers}
mkdir -p "$out"
on="--dataset utkface-100 --device cuda"

# DenseNet121 compiled (two to three minutes of compiling, apart from what is measured).
facebench speed --rows densenet121 --compile --images 1600 --against none $on \
    --runs-dir "$out/densenet121" > "$out/densenet121.txt"

# One run of each kind of `plan35`, the short ones first: start, end and epochs are in their folders.
run() {
    facebench run "$1" --set backbone.weights=none --seeds 0 --tracking files --keep-weights none \
        $on --runs-dir "$out/runs" 2> "$out/$1.txt"
}
for name in mtl-vgg16-imagenet-frozen mtl-vgg16-imagenet-block5 mtl-cnn-none-full \
    mtl-resnet50-imagenet-conv5 mtl-densenet121-imagenet-denseblock4 mtl-vgg16-imagenet-full \
    mtl-vgg19-imagenet-full mtl-resnet50-imagenet-full mtl-densenet121-imagenet-full; do
    run "$name"
done
