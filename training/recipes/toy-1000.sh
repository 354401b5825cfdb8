#!/bin/sh
# The embedded toy model with 1000 classes, from nothing to bundle. Call again to go on where it stopped.
#   training/recipes/toy-1000.sh [options of the loop]                  # 47 minutes of one CPU thread, 64^3
# On a GPU, at 128^3: see Testing/Benchmarks/gpu.md. If the sample changes, sample_data.py of the panel needs its SHA-256.
set -eu
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python}
FOLDER=${FOLDER:-.benchmarks/toy-1000}

"$PYTHON" -m classscale_training.loop --preset toy-1000-cpu --folder "$FOLDER" "$@"
[ -f "$FOLDER/fold_0/checkpoint_final.pth" ] || exit 0 # stopped by --minutes: call again
"$PYTHON" training/embedded_models/pack_toy_model.py "$FOLDER"
"$PYTHON" training/embedded_models/write_demo_sample.py
"$PYTHON" Testing/Benchmarks/learning_curve.py "$FOLDER" --name toy-1000
