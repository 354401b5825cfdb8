"""Channels found by the names of volumes: names of public datasets and of scanners."""

import pytest
from ClassScaleSegLib.images.channel_names import looks_like, match_channels

BRATS = ("T1", "T1ce", "T2", "FLAIR")


def found(channels, candidates, chosen=None):
    """The name that each channel was found by, or ``None``."""
    matches = match_channels(channels, candidates, chosen)
    return tuple(None if match.index is None else candidates[match.index] for match in matches)


@pytest.mark.parametrize(
    ("channels", "candidates"),
    [
        # BraTS 2020, BraTS 2023, the Medical Segmentation Decathlon
        (BRATS, tuple(f"BraTS20_Training_001_{end}" for end in ("t1", "t1ce", "t2", "flair"))),
        (BRATS, tuple(f"BraTS-GLI-00000-000-{end}" for end in ("t1n", "t1c", "t2w", "t2f"))),
        (("FLAIR", "T1w", "t1gd", "T2w"), ("Flair", "T1", "T1 Gd", "T2")),
        (("T2", "ADC"), ("ProstateX-0001 t2_tse_tra", "ProstateX-0001 ep2d_diff_ADC")),
        # BIDS
        (BRATS, ("sub-01_T1w", "sub-01_ce-gadolinium_T1w", "sub-01_T2w", "sub-01_FLAIR")),
        (("T1", "FLAIR", "PD", "T2*"), ("sub-1_space-T2w_T1w", "sub-1_FLAIR", "sub-1_PDw", "sub-1_T2starw")),
        # ISLES 2015, 2018, 2022, 2024
        (("DWI", "ADC", "FLAIR"), tuple(f"sub-strokecase0001_ses-0001_{end}" for end in ("dwi", "adc", "flair"))),
        (("CT", "CBF", "CBV", "MTT", "Tmax"), tuple(f"SMIR.Brain.XX.O.{end}.345563" for end in
            ("CT", "CT_CBF", "CT_CBV", "CT_MTT", "CT_Tmax"))),
        (("NCCT", "CTA", "CBF"), ("sub-1_ses-01_ncct", "sub-1_ses-01_space-ncct_cta", "sub-1_ses-01_space-ncct_cbf")),
        # PI-CAI, HECKTOR, crossMODA, MSSEG, CHAOS
        (("T2W", "ADC", "HBV"), ("10000_1000000_t2w", "10000_1000000_adc", "10000_1000000_hbv")),
        (("CT", "PET"), ("CHUM-001__CT", "CHUM-001__PT")),
        (("ceT1", "hrT2"), ("crossmoda_1_ceT1", "crossmoda_1_hrT2")),
        (("FLAIR", "T1", "T2", "DP", "GADO"), ("3DFLAIR", "3D-T1", "T2", "DP", "T1 GADO")),
        (("T1 in-phase", "T1 out-phase"), ("T1DUAL InPhase T1", "T1DUAL OutPhase T1")),
        # scanners
        (BRATS, ("5: t1_mprage_sag", "9: t1_mprage_sag +C", "6: t2_tse_tra", "7: t2_tirm_tra_dark-fluid")),
        (("T1", "T1C"), ("AX T1 PRE CONTRAST", "AX T1 POST CONTRAST")),
        (("T1", "T1C"), ("T1 tra nativ", "T1 tra KM")),
        (("T1", "T1C"), ("T1 without contrast", "T1 with contrast")),
        (("T1", "FLAIR"), ("Ax T1 FLAIR", "Ax T2 FLAIR")),
        (("T2", "STIR"), ("T2 TSE", "T2 STIR")),
        (("b1000", "b0"), ("ep2d b=1000", "ep2d b=0")),
        (("T2 axial", "T2 sagittal"), ("t2_tse_tra", "t2_tse_sag")),
        (("T1", "T1 axial"), ("T1 MPRAGE", "T1 ax")),
        # words that are no sequence
        (("water", "fat"), ("Dixon WATER", "Dixon fat")),
        (("T1", "T2"), ("T1 to T2", "T2")),
        # as nnU-Net numbers them, whatever the channels are called
        (("noNorm", "CT"), ("case_0000", "case_0001")),
    ],
)  # fmt: skip
def test_volumes_are_found_in_any_order(channels, candidates):
    assert found(channels, candidates) == candidates
    assert found(channels, candidates[::-1]) == candidates
    spoiled = (*candidates, "Localizer", "Mask of T1", "T2 segmentation", "")
    if "0000" not in candidates[0]:
        assert found(channels, spoiled) == candidates


@pytest.mark.parametrize(
    ("channel", "candidate"),
    [
        ("T1", "t1ce"),
        ("T1c", "T1w"),
        ("T2", "T2 FLAIR"),
        ("T2", "T2*"),
        ("FLAIR", "T2w"),
        ("FLAIR", "T1 FLAIR"),
        ("DWI", "dwi_adc"),
        ("DWI", "DWI b0"),
        ("b1000", "b800"),
        ("CT", "CTA"),
        ("CT", "CT_CBF"),
        ("CT", "PET CT"),
        ("T1", "T1map"),
        ("T1", "sub-01_T1w_mask"),
        ("T1", "T1 post - pre subtraction"),
        ("T1", "T1 T2 ratio"),
        ("T1", "Anna"),
        ("T1", "T10"),
        ("T1c", "T1 post-op"),
        ("MRI", "MRI"),
        ("noNorm", "noNorm"),
        ("channel 1", "channel 1"),
        ("", ""),
        ("<b>", "b"),
    ],
)
def test_what_does_not_fit_is_not_guessed(channel, candidate):
    (match,) = match_channels((channel,), (candidate,))
    assert (match.index, match.possible) == (None, ())
    assert match.known == (channel not in ("MRI", "noNorm", "channel 1", "", "<b>"))


def test_two_that_fit_are_told_and_one_is_used_once():
    match, other = match_channels(("T1", "FLAIR"), ("T1w", "Sag T1 MPRAGE", "FLAIR"))
    assert (match.index, match.possible, other.index) == (None, (0, 1), 2)
    # channels of one name: which volume is which cannot be known
    assert [match.known for match in match_channels(("CT", "CT"), ("CT", "CT late"))] == [False, False]
    # the only volume that two channels could be
    matches = match_channels(("DWI", "hbv DWI"), ("dwi",))
    assert [match.index for match in matches].count(0) <= 1
    assert found(("T1", "T2"), ("T1", "T2"), {0: 1}) == ("T2", None)  # chosen for another channel already


def test_of_several_patients_the_one_of_the_chosen_volume_is_taken():
    names = ("sub-01_T1w", "sub-01_FLAIR", "sub-02_T1w", "sub-02_FLAIR")
    assert found(("T1", "FLAIR"), names) == (None, None)
    assert found(("T1", "FLAIR"), names, {0: 2}) == ("sub-02_T1w", "sub-02_FLAIR")
    (_chosen, match) = match_channels(("T1", "FLAIR"), ("sub-01_T1w", "sub-02_FLAIR"), {0: 0})
    assert match.index is None and match.possible == (1,)  # of another patient: the user has to choose it
    assert found(("T1", "FLAIR"), ("5: T1", "7: FLAIR"), {0: 0}) == ("5: T1", "7: FLAIR")
    assert found(("T1", "T2"), ("Anna", "T2"), {0: 0}) == ("Anna", "T2")


def test_numbers_count_only_if_all_are_there():
    assert found(("noNorm", "CT"), ("case_0000", "case_0002")) == (None, None)
    assert found(("noNorm", "CT"), ("a_0000", "b_0001")) == (None, None)
    assert found(("T1",), ("case_0000",)) == (None,)


def test_a_volume_may_look_like_another_channel():
    assert looks_like(BRATS, "BraTS20_001_flair") == 3 and looks_like(BRATS, "T1 Gd") == 1
    assert looks_like(BRATS, "Anna") is None and looks_like(("CT", "CT"), "CT") is None


def test_hostile_names_take_no_time():
    hostile = ["t1" * 5000, "b" * 9000 + "=1", " " * 9000 + "+c", "post-" * 3000, "\n\0" * 500, "é" * 1000]
    assert found(("T1", "FLAIR"), hostile) == (None, None)
