"""The image of each channel is found by its name, and what is not certain is not guessed."""

import itertools

import pytest
from ClassScaleSegLib.images.channel_names import match_channels

BRATS = ["T1", "T1ce", "T2", "Flair"]


@pytest.mark.parametrize(
    "channels, images",
    [
        (BRATS, [f"BraTS20_Training_001_{kind}.nii.gz" for kind in ("t1", "t1ce", "t2", "flair")]),
        (BRATS, [f"BraTS-GLI-00001-000-{kind}" for kind in ("t1n", "t1c", "t2w", "t2f")]),
        (["T1w", "t1gd", "T2w", "FLAIR"], ["sub-01_T1w", "sub-01_ce-gadolinium_T1w", "sub-01_T2w", "sub-01_FLAIR"]),
        (["T1", "FLAIR"], ["sub-01_T1w", "sub-01_FLAIR"]),
        (["T1", "FLAIR"], ["4: t1_mprage_sag_p2_iso", "7: t2_tirm_tra_dark-fluid"]),
        (["T1", "T1 post contrast"], ["T1 pre contrast", "MPRAGE post Gd"]),
        (["T1", "T1c"], ["T1 native", "T1+C"]),
        (["T2", "T2*"], ["sub-1_T2w", "sub-1_T2starw"]),
        (["DWI", "ADC", "FLAIR"], [f"sub-strokecase0001_ses-0001_{kind}" for kind in ("dwi", "adc", "FLAIR")]),
        (["t2w", "adc", "hbv"], ["10000_1000000_t2w.mha", "10000_1000000_adc.mha", "10000_1000000_hbv.mha"]),
        (["CT", "PET"], ["2: CT WB 3.0", "4: PET WB (SUV)"]),
        (["CT", "PT"], ["CHUM-001__CT", "CHUM-001__PT"]),
        (["T1", "T2FLAIR"], ["SagT1w", "AxT2FLAIR"]),
        (["noNorm", "zscore"], ["case_017_0000.nii.gz", "case_017_0001.nii.gz"]),
        (["Phase", "Magnitude"], ["scan 3 phase", "scan 3 magnitude"]),
    ],
)
def test_images_are_found_in_any_order(channels, images):
    for order in itertools.permutations(range(len(images))):
        found = match_channels(channels, [images[i] for i in order])
        assert [order[i] for i in found.chosen] == list(range(len(channels))), (found, order)
        assert not any(found.ambiguous)


@pytest.mark.parametrize(
    "channels, images, chosen, ambiguous",
    [
        (["T1", "FLAIR"], ["T1 a", "T1 b", "FLAIR"], (None, 2), ((0, 1), ())),
        (["T1", "FLAIR"], ["T1ce", "FLAIR"], (None, 1), ((), ())),  # with contrast agent it is another channel
        (["T1ce", "FLAIR"], ["T1", "FLAIR"], (None, 1), ((), ())),
        (["T2", "T1"], ["FLAIR", "t2_flair", "T1"], (None, 2), ((), ())),
        (["T1", "T1"], ["T1", "T2"], (None, None), ((0,), (0,))),  # the same for both
        (["T1", "FLAIR"], [], (None, None), ((), ())),
        (["noNorm", "noNorm"], ["a", "b"], (None, None), ((), ())),
        (["CT", "PET"], ["ACTIVE", "CTA"], (None, None), ((), ())),  # a word, not letters inside of one
        (["T1", "FLAIR"], ["sub-01_T1w", "sub-01_FLAIR", "sub-02_T1w"], (0, 1), ((), ())),  # of the same patient
        (["T1", "T2"], ["a_T1", "b_T1", "a_T2", "b_T2"], (None, None), ((0, 1), (2, 3))),
        (["", "T2"], ["x", "T2"], (None, 1), ((), ())),
    ],
)
def test_what_is_not_certain_is_left_to_the_user(channels, images, chosen, ambiguous):
    assert match_channels(channels, images) == (chosen, ambiguous)


def test_the_image_that_the_user_has_chosen_decides_between_patients():
    images = ["a_T1", "b_T1", "a_T2", "b_T2"]
    assert match_channels(["T1", "T2"], images, {0: 1}).chosen == (1, 3)
    assert match_channels(["T1", "T2"], images, {1: 2}).chosen == (0, 2)
    assert match_channels(["T1", "T2"], images, {0: 2}).chosen == (2, 3)  # also if its name says otherwise
