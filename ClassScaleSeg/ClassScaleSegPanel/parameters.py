"""The parameter node: the settings of the panel, which are saved with the scene."""

from typing import Annotated

from ClassScaleSegLib.options import FIELDS
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLTableNode
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

SAMPLE = "toy-120"
# the parameters that are nodes; further channels are references of the parameter node, with such names
NODES = ("inputVolume", "channel2", "channel3", "channel4", "region", "segmentation", "confidence", "statistics")
# the greatest value of each number; the panel has more of them than the command, because its controls are sliders
LIMITS: dict[str, float] = {
    "memoryLimit": 1024,
    "threads": 1024,
    "removeIslands": 1e6,
    **{name: FIELDS[name].metadata["most"] for name in ("step", "smooth")},
}


@parameterNodeWrapper
class ClassScaleSegParameterNode:
    """The settings of the panel, which are saved with the scene.

    :ivar inputVolume: the volume to segment, or the first channel.
    :ivar channel2: the second channel, if the model needs one.
    :ivar channel3: the third channel, if the model needs one.
    :ivar channel4: the fourth channel, if the model needs one. Further ones are references of the node: "channel5", ...
    :ivar allFrames: segment every frame of the sequence that the volume is part of.
    :ivar region: segment only the voxels inside it; none: the whole volume.
    :ivar model: id of the model in the catalogue.
    :ivar moreModels: ids of further models of the same run, one per line, in their order.
    :ivar overlap: "later": the later of several models gets a voxel that they claim; "keep": all do, in layers.
    :ivar classes: one class name per line; empty: all classes.
    :ivar segmentation: the node to fill; none: a new node.
    :ivar confidence: the volume to fill with the probability of each voxel's class; none: it is not computed.
    :ivar statistics: the table to fill with the statistics of the structures; none: no table.
    :ivar report: the folder of the report; empty: no report.
    :ivar standardNames: name segments by their terminology codes.
    :ivar keepEmpty: also add segments for classes that were not found.
    :ivar device: "auto", "cpu", "cuda:0" and so on; "server:" and the address of a server.
    :ivar memoryLimit: GiB; 0: the free memory.
    :ivar step: distance between neighbouring windows, as a fraction of the window size; 0: as is usual for the model.
    :ivar mirroring: average the results of mirrored images, if the model is made for it.
    :ivar bfloat16: on a processor, let the network compute in bfloat16: faster on some, slightly less exact.
    :ivar folds: numbers separated by spaces or commas; empty: all folds.
    :ivar threads: CPU threads; 0: automatic.
    :ivar smooth: standard deviation, in mm, by which borders are smoothed; 0: they are not.
    :ivar removeIslands: smaller islands, in mm^3, are removed; 0: none.
    :ivar locateWith: id of a coarse model that finds where the classes are; empty: as the catalogue says of the model,
        which is the whole image for most; "none": the whole image.
    :ivar interpolation: from the model's voxels to those of the volume: "linear" or "nearest".
    """

    inputVolume: vtkMRMLScalarVolumeNode
    channel2: vtkMRMLScalarVolumeNode
    channel3: vtkMRMLScalarVolumeNode
    channel4: vtkMRMLScalarVolumeNode
    allFrames: bool = False
    region: vtkMRMLMarkupsROINode
    model: str = SAMPLE
    moreModels: str = ""
    overlap: str = "later"
    classes: str = ""
    segmentation: vtkMRMLSegmentationNode
    confidence: vtkMRMLScalarVolumeNode
    statistics: vtkMRMLTableNode
    report: str = ""
    standardNames: bool = True
    keepEmpty: bool = False
    device: str = "auto"
    memoryLimit: Annotated[float, WithinRange(0, LIMITS["memoryLimit"])] = 0
    step: Annotated[float, WithinRange(0, LIMITS["step"])] = 0
    mirroring: bool = True
    bfloat16: bool = False
    folds: str = ""
    threads: Annotated[int, WithinRange(0, LIMITS["threads"])] = 0
    smooth: Annotated[float, WithinRange(0, LIMITS["smooth"])] = 0
    removeIslands: Annotated[float, WithinRange(0, LIMITS["removeIslands"])] = 0
    locateWith: str = ""
    interpolation: str = "linear"
