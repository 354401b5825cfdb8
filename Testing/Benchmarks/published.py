"""Published figures of other projects and how far they can be compared: text for the page of results."""

PUBLISHED = """\
| source | what | figure |
|---|---|---|
| Jaubert et al., MIDL 2026 | TotalSegmentator's 117 classes, one model; mean Dice | 0.913 |
| the same | five models, the baseline | 0.928 |
| the same | VISTA3D | 0.803 |
| the same | synthetic dataset, up to 1000 classes; mean Dice | above 0.95 |
| TotalSegmentator 2.18, 512x512x531 voxels, 24 GB GPU | time, RAM, GPU memory | 377 s, 47.9 GB, 23.1 GB |
| TotalSegmentator-KonfAI 1.8.6, the same | | 212 s, 17.6 GB, 10.6 GB |

**Comparable to a degree.** The Dice on our toy atlas and on the synthetic dataset of Jaubert et al. are only similar in
kind: both datasets are volumes with many labelled cells, and the recipe of theirs is not public. This page reports
TotalSegmentator's rule (the mean over the cases that have the class) and a pooled Dice, which counts false positives.

**Not comparable.** TotalSegmentator's 117 classes have not been trained with this project yet: that needs its dataset
and days of GPU time. `training/recipes/totalsegmentator.md` is the recipe. The seconds and gigabytes above were
measured on machines with a GPU; ours were measured on a CPU, as were those of stock nnU-Net beside them."""
