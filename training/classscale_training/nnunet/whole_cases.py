"""The final validation of ClassScaleTrainer: whole cases, by the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ClassScaleSegLib.files import replacing
from ClassScaleSegLib.inference.backbone import Backbone
from ClassScaleSegLib.models.projection import Projection
from torch import distributed

from ..data.merged_labels import Merged
from ..network.low_rank_head import FinestBasis, decoder_of
from .case_validation import case_metrics, dice_by_dataset, merged_case_metrics, segment_case, write_summary
from .label_index import check_meanings

MAX_CLASSES_WITH_PROBABILITIES = 64  # --npz stores one volume for each class of each case
_Untyped: Any = object  # nnU-Net's trainer has no types, so neither does what the class below is mixed into


class CaseValidation(_Untyped):
    """The part of the trainer that validates; its other base is :class:`.TrainerOfSeveral`.

    :ivar merged: the datasets, if ``classscaleseg-train merge`` made the dataset of several; otherwise None.
    """

    merged: Merged | None

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Segment the validation cases, and write ``validation/summary.json`` as nnU-Net does.

        :param save_probabilities: also store probabilities, as ``--npz`` asks for. With at most 64 classes, nnU-Net's
            own validation does this; with more, and for a merged dataset, none are stored, and the log says so.
        """
        classes = self.label_manager.num_segmentation_heads
        if save_probabilities and self.merged is None and classes <= MAX_CLASSES_WITH_PROBABILITIES:
            super().perform_actual_validation(save_probabilities)
            return
        if save_probabilities and self.merged is not None:
            self.print_to_log_file("No probabilities are stored: --npz is not possible with a merged dataset.")
        elif save_probabilities:
            self.print_to_log_file(
                f"No probabilities are stored: --npz would store {classes} volumes for each case, and at most "
                f"{MAX_CLASSES_WITH_PROBABILITIES} are allowed."
            )
        if self.configuration_manager.next_stage_names:
            self.print_to_log_file(
                "No predictions are written for the next stage of the cascade, which ClassScaleTrainer cannot train."
            )
        self.network.eval()
        cases = self._validate_cases()
        if self.local_rank == 0:
            summary = write_summary(cases, Path(self.output_folder) / "validation" / "summary.json")
            for label, metrics in summary["mean"].items():
                self.logger.log_summary(f"final_val/class_{label}_dice", metrics["Dice"])
            self.logger.log_summary("final_val/foreground_dice", summary["foreground_mean"]["Dice"])
            self.print_to_log_file("Validation complete", also_print_to_console=True)
            self.print_to_log_file("Mean Validation Dice: ", summary["foreground_mean"]["Dice"])
            for name, mean in dice_by_dataset(self.merged, cases).items() if self.merged is not None else ():
                self.print_to_log_file(f"Mean Validation Dice of {name}: ", mean)

    def _validate_cases(self) -> list[dict]:
        """Predict and compare the cases of this process, and return the metrics of the cases of all processes."""
        keys = sorted(self.do_split()[1])
        world = distributed.get_world_size() if self.is_ddp else 1
        dataset = self.dataset_class(self.preprocessed_dataset_folder, keys[self.local_rank :: world])
        reader, ending = self.plans_manager.image_reader_writer_class(), self.dataset_json["file_ending"]
        references = Path(self.preprocessed_dataset_folder_base) / "gt_segmentations"
        predictions = Path(self.output_folder) / "validation"
        regions = self.label_manager.has_regions
        evaluated = self.label_manager.foreground_regions if regions else self.label_manager.foreground_labels
        evaluated = [tuple(e) if isinstance(e, list | tuple) else int(e) for e in evaluated]
        if self.merged is not None:
            check_meanings(Path(self.preprocessed_dataset_folder), self.merged)
        managers = self.plans_manager, self.configuration_manager
        backbone, projection = self._split_network()
        cases = []
        for index, key in enumerate(dataset.identifiers):
            self.print_to_log_file(f"predicting {key}")
            data, _, _, properties = dataset.load_case(key)
            labels = segment_case(data[:], properties, managers, backbone, projection, self.device)
            reference_file, prediction_file = references / f"{key}{ending}", predictions / f"{key}{ending}"
            with replacing(prediction_file, overwrite=True) as temporary:
                reader.write_seg(labels, str(temporary), properties)
            reference = reader.read_seg(str(reference_file))[0][0].astype(np.int64)
            if self.merged is None:
                metrics = case_metrics(reference, labels, evaluated, self.label_manager.ignore_label)
            else:
                metrics = merged_case_metrics(self.merged, key, reference, labels)
            files = {"reference_file": str(reference_file), "prediction_file": str(prediction_file)}
            cases.append({"metrics": metrics, **files})
            # NCCL aborts after a long silence. Every process has at least this many cases, so all reach the barrier.
            if self.is_ddp and index < len(keys) // world:
                distributed.barrier()
        everywhere = [case for rank in self.of_all_processes(cases) for case in rank]
        return sorted(everywhere, key=lambda case: case["reference_file"])

    def _split_network(self) -> tuple[Backbone, Projection]:
        """Return the network as the engine takes it: what computes the basis, and the projection."""
        network = self.bare_network
        head, regions = decoder_of(network).seg_layers, self.label_manager.has_regions
        values = self.label_manager.regions_class_order if regions else self.label_manager.all_labels
        projection = Projection(head.projection.detach(), head.bias.detach(), tuple(map(int, values)), regions)
        backbone = network if hasattr(network, "encoder") else FinestBasis(network)
        return Backbone([backbone], self.inference_allowed_mirroring_axes or ()), projection
