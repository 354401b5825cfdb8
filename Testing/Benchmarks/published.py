"""What others published, and what of it can be compared: text for the evidence page."""

PUBLISHED = """\
| who | what | figure |
|---|---|---|
| Jaubert et al., MIDL 2026 | TotalSegmentator's 117 classes, one model; mean Dice | 0.913 |
| the same | five models, the baseline | 0.928 |
| the same | VISTA3D | 0.803 |
| the same | synthetic dataset, up to 1000 classes; mean Dice | above 0.95 |
| TotalSegmentator 2.18, 512x512x531 voxels, 24 GB GPU | time, RAM, GPU memory | 377 s, 47.9 GB, 23.1 GB |
| TotalSegmentator-KonfAI 1.8.6, the same | | 212 s, 17.6 GB, 10.6 GB |

**Comparable.** Dice on our toy atlas with theirs on their synthetic dataset only in kind: both are volumes with many
labelled cells, and the recipe of theirs is not public. Our page reports TotalSegmentator's rule (the mean over the
cases that have the class) and beside it a pooled Dice that counts false positives.

**Not comparable.** Nobody has trained TotalSegmentator's 117 classes with this project yet: it takes its dataset and
days of a GPU. `training/recipes/totalsegmentator.md` is the recipe. Seconds and gigabytes above are of machines with a
GPU; ours are of a CPU, beside stock nnU-Net on the same one."""
