"""The voxel in the middle of a structure is that which a search of all voxels finds."""

import numpy as np
import pytest
from ClassScaleSegLib.images.occupied import middle_voxel, occupied_box
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(*[st.integers(1, 12)] * 3),
    st.integers(0, 2**32 - 1),
    st.floats(0.001, 0.5),
    st.tuples(*[st.floats(0.3, 6.0)] * 3),
)
def test_no_voxel_is_nearer_to_the_centre_of_mass(shape, seed, share, spacing):
    mask = np.random.default_rng(seed).random(shape) < share
    found = middle_voxel(mask, spacing)
    voxels = np.argwhere(mask)
    if not len(voxels):
        assert found is None and occupied_box(mask) == []
        return
    distances = np.linalg.norm((voxels - voxels.mean(0)) * spacing, axis=1)
    own = np.linalg.norm((np.array(found) - voxels.mean(0)) * spacing)
    assert mask[found] and own == pytest.approx(distances.min(), abs=1e-9)
    box = occupied_box(mask)
    assert [part.start for part in box] == voxels.min(0).tolist()
    assert [part.stop - 1 for part in box] == voxels.max(0).tolist()
