#!/usr/bin/env bash
# A folder of images -> a robust classifier -> a SavedModel to serve.
#
#   examples/own_images.sh IMAGES WORKDIR [FLAGS OF mart-train]
#
# IMAGES has a folder of PNG or JPEG files for each class; or train/ and test/
# with those. What to choose for epsilon, epochs and the rest: docs/own_model.md.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: $0 IMAGES WORKDIR [FLAGS OF mart-train]" >&2
    exit 1
fi
images=$1 workdir=$2
shift 2

# All are resized to 32 x 32; the epsilon is CIFAR-10's. Later flags win.
mart-train --workdir="$workdir" --dataset="folder:$images:size=32" \
    --model=resnet18 --defense=mart --epsilon=8/255 \
    --epochs=30 --epsilon_warmup_epochs=3 --learning_rate=0.01 "$@"
mart-evaluate --workdir="$workdir" --attacks=fgsm,pgd:steps=20,cw
mart-export --workdir="$workdir"

echo "Look at $workdir/evaluation/report.html; serve $workdir/export."
