#!/bin/sh
# Make the embedded toy model with 1000 classes, from generated data to bundle. If it is interrupted, run it again.
#   training/recipes/toy-1000.sh [options of the loop]                  # 64^3, 47 minutes on one CPU thread
# For 128^3 on a GPU see Testing/Benchmarks/gpu.md. If the sample changes, update its SHA-256 in the panel's sample_data.py.
set -eu
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python}
FOLDER=${FOLDER:-.benchmarks/toy-1000}

"$PYTHON" -m classscale_training.loop --preset toy-1000-cpu --folder "$FOLDER" "$@"
[ -f "$FOLDER/fold_0/checkpoint_final.pth" ] || exit 0 # stopped by --minutes: run it again
"$PYTHON" training/embedded_models/pack_toy_model.py "$FOLDER"
"$PYTHON" training/embedded_models/write_demo_sample.py
"$PYTHON" Testing/Benchmarks/learning_curve.py "$FOLDER" --name toy-1000
