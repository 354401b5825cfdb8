"""Any DICOM series and any NIfTI header: voxels and geometry equal the truth, or there is a sentence."""

import pytest

pytest.importorskip("SimpleITK")
pytest.importorskip("pydicom")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from reading_cases import check_dicom, check_nifti, dicom_cases, nifti_cases  # noqa: E402

EXAMPLES = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@EXAMPLES
@given(case=dicom_cases())
def test_dicom_is_read_as_written_or_refused(tmp_path_factory, case):
    check_dicom(case, tmp_path_factory.getbasetemp() / "dicom_case")


@EXAMPLES
@given(case=nifti_cases())
def test_nifti_is_read_as_written_or_refused(tmp_path_factory, case):
    check_nifti(case, tmp_path_factory.getbasetemp() / "nifti_case")
