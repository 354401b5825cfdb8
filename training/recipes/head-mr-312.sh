#!/bin/sh
# Make the embedded brain model, from label maps to bundle. If it is interrupted, run it again; see head-mr-312.md.
#   HARDWARE="one NVIDIA H100" ATLAS=.../spl_brain INDIVIDUALS=.../synthseg_labels \
#       training/recipes/head-mr-312.sh [options of the loop]
# HARDWARE is stated in the model card.
set -eu
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python}
WORK=${WORK:-.benchmarks/brain}
PRESET=${PRESET:-head-mr-312}
: "${HARDWARE:?must name the hardware of the training, for the model card}"
maps="$WORK/label_maps.npz"

[ -f "$maps" ] || "$PYTHON" training/embedded_models/prepare_brain_data.py --atlas "$ATLAS" --individuals "$INDIVIDUALS" --output "$maps"
"$PYTHON" -m classscale_training.loop --preset "$PRESET" --data "brain:$maps" --folder "$WORK/run" "$@"
[ -f "$WORK/run/fold_0/checkpoint_final.pth" ] || exit 0 # stopped by --minutes: run it again
"$PYTHON" -m ClassScaleSegLib pack "$WORK/run" -o "$WORK/rounded.zip" --bits 8 --overwrite
"$PYTHON" training/embedded_models/evaluate_brain_model.py "$WORK/rounded.zip" --label-maps "$maps" --output "$WORK/evaluation.json"
"$PYTHON" training/embedded_models/pack_brain_model.py --folder "$WORK/run" --evaluation "$WORK/evaluation.json" \
    --hardware "$HARDWARE" --atlas-licence "$ATLAS/3DSlicer_License.txt"
"$PYTHON" training/embedded_models/write_brain_sample.py --label-maps "$maps"
