"""Label sets: the marginal loss, its tables, and the errors of tables that contradict themselves."""

from __future__ import annotations

import json

import pytest
import torch
from classscale_training import CrossEntropyDiceLoss, LabelSets, class_statistics
from classscale_training.loss.label_sets import voxel_weights

CLASSES = 7


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(5)
    basis = torch.randn(2, 4, 3, 3, 3, generator=generator, dtype=torch.double, requires_grad=True)
    projection = torch.randn(CLASSES, 4, generator=generator, dtype=torch.double, requires_grad=True)
    bias = torch.randn(CLASSES, generator=generator, dtype=torch.double, requires_grad=True)
    return basis, projection, bias


# Sample 0 annotates {0, 5, 6}, {1}, {2, 3, 4}; sample 1 annotates {0, 1, 2}, {3}, {4}, {5, 6}.
ROWS = torch.tensor([[0, 1, 2, 2, 2, 0, 0], [0, 0, 0, 1, 2, 3, 3]])


def some_labels(ignore=None):
    labels = torch.arange(54).reshape(2, 3, 3, 3) * 7 % 11 % 3
    if ignore is not None:
        labels[:, 1, 1] = ignore
    return labels


def test_identity_sets_equal_ordinary_labels(case):
    labels = some_labels(ignore=255)
    identity = torch.arange(CLASSES).expand(2, -1)
    results = []
    for sets in (None, identity):
        stats = class_statistics(*case, labels, 255, sets)
        loss = stats.cross_entropy_sum - (stats.intersection**2 / (1 + stats.predicted)).sum() + stats.logits.sum()
        results.append((*stats, *torch.autograd.grad(loss, case)))
    for ordinary, by_sets in zip(*results, strict=True):
        torch.testing.assert_close(by_sets, ordinary, rtol=1e-12, atol=1e-13)


def test_sums_are_those_of_the_summed_probabilities(case):
    labels = some_labels(ignore=255)
    stats = class_statistics(*case, labels, 255, ROWS)
    basis, projection, bias = case
    p = (torch.einsum("cr,br...->bc...", projection, basis) + bias[:, None, None, None]).softmax(1)
    assert stats.predicted.shape == (2, 4)
    for b in range(2):
        for label in range(int(ROWS[b].max()) + 1):
            q, here = p[b, ROWS[b] == label].sum(0), labels[b] == label
            torch.testing.assert_close(stats.cross_entropy[b, label], -q[here].log().sum(), rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(stats.intersection[b, label], q[here].sum(), rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(stats.predicted[b, label], q[labels[b] != 255].sum(), rtol=1e-12, atol=1e-12)
            assert stats.reference[b, label] == here.sum()


def test_gradcheck_with_sets_and_ignored_voxels(case):
    assert torch.autograd.gradcheck(
        lambda *x: [y for y in class_statistics(*x, some_labels(255), 255, ROWS) if y.requires_grad], case
    )


def test_sets_whose_probability_underflows_keep_value_and_gradient(case):
    basis, projection, bias = (x.detach().float() for x in case)
    bias = torch.tensor([0.0, 400, 0, 0, 0, 0, 0]).requires_grad_()  # float32 has no exp(-400)
    labels = torch.full((2, 3, 3, 3), 2)
    stats = class_statistics(basis, projection, bias, labels, label_sets=ROWS)
    assert 390 < float(stats.cross_entropy[0, 2].detach()) / 27 < 410
    (gradient,) = torch.autograd.grad(stats.cross_entropy[0, 2], bias)
    assert float(gradient[1]) == pytest.approx(27, rel=1e-5)  # all probability is at class 1 and should leave it
    assert float(gradient[2:5].sum()) == pytest.approx(-27, rel=1e-5)


def test_a_table_leaves_everything_unnamed_to_the_background():
    table = LabelSets.from_classes(6, [{1: [1], 2: [2]}, {1: [3, 4, 5]}, {0: [0], 1: [1], 2: [2], 3: [3, 4, 5]}])
    assert table.label_of_class.tolist() == [[0, 1, 2, 0, 0, 0], [0, 0, 0, 1, 1, 1], [0, 1, 2, 3, 3, 3]]
    first, second, third = table.set_of_label.tolist()
    assert third[1:3] == first[1:3] and third[3] == second[1]  # the same sets in different datasets
    assert len({first[0], second[0], third[0]}) == 3
    assert [row.nonzero().flatten().tolist() for row in table.is_background] == [[first[0]], [second[0]], [third[0]]]


def test_batch_dice_pools_the_samples_that_annotate_a_set(case):
    table = LabelSets.from_classes(CLASSES, [{1: [1], 2: [2, 3]}, {1: [2, 3]}])
    labels = torch.zeros(2, 3, 3, 3, dtype=torch.long)
    labels[0, 0], labels[0, 1], labels[1, 2] = 1, 2, 1
    loss = CrossEntropyDiceLoss(weight_ce=0, label_sets=table)(*case, labels, torch.tensor([0, 1]))
    basis, projection, bias = case
    p = (torch.einsum("cr,br...->bc...", projection, basis) + bias[:, None, None, None]).softmax(1)
    shared = p[:, 2:4].sum(1)
    dice = [
        (2 * p[0, 1, 0].sum() + 1e-5) / (p[0, 1].sum() + 9 + 1e-5),
        (2 * (shared[0, 1].sum() + shared[1, 2].sum()) + 1e-5) / (shared.sum() + 18 + 1e-5),
    ]
    torch.testing.assert_close(loss, -sum(dice) / 2)


def test_a_file_gives_the_same_table(tmp_path):
    file = tmp_path / "sets.json"
    names = ["background", "pulvinar", "lateral geniculate", "caudate"]
    file.write_text(json.dumps({"classes": names, "datasets": [{"1": names[1:3]}, {"1": ["caudate"]}]}))
    assert LabelSets.read(file).label_of_class.tolist() == [[0, 1, 1, 0], [0, 0, 0, 1]]
    file.write_text(json.dumps({"classes": names, "datasets": [{"1": ["putamen"]}]}))
    with pytest.raises(ValueError, match=r"sets.json has no 'putamen'"):
        LabelSets.read(file)
    file.write_text("{")
    with pytest.raises(ValueError, match=r"sets.json is not a table of label sets"):
        LabelSets.read(file)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({1: [1, 9]}, "label 1 of dataset 0 names class 9; the classes are 0..6"),
        ({1: [1], 2: [1]}, "dataset 0 has class 1 under the labels 1 and 2"),
        ({0: [0], 1: [1, 2]}, "dataset 0 has class 3 under no label"),
        ({1: [1], 3: [2]}, r"dataset 0 has labels \[0, 1, 3\]; expected 0..2"),
        ({1: [1], 2: []}, r"dataset 0 has labels \[0, 1, 2\]; expected 0..2, each with a class"),
    ],
)
def test_tables_that_contradict_themselves_are_refused(table, message):
    with pytest.raises(ValueError, match=message):
        LabelSets.from_classes(CLASSES, [table])


def test_a_label_outside_its_own_dataset_is_named(case):
    labels = some_labels()
    labels[0, 0, 0, 0] = 3  # sample 1 has a label 3, sample 0 has not
    with pytest.raises(ValueError, match="label 3 is outside 0..2, the labels of this dataset"):
        class_statistics(*case, labels, label_sets=ROWS)


def test_a_label_without_classes_is_refused(case):
    rows = ROWS.clone()
    rows[0, 1] = 4
    with pytest.raises(ValueError, match="gives label 1 of sample 0 no class"):
        class_statistics(*case, some_labels(), label_sets=rows)


def test_class_weights_and_datasets_out_of_place_are_refused(case):
    table = LabelSets.from_classes(CLASSES, [{1: [1]}])
    with pytest.raises(ValueError, match="defined per class"):
        CrossEntropyDiceLoss(label_sets=table, label_smoothing=0.1)
    with pytest.raises(ValueError, match="give both of them, or neither"):
        CrossEntropyDiceLoss(label_sets=table)(*case, some_labels())


def test_label_weights_weigh_each_voxel_by_its_label_in_its_own_dataset(case):
    table = LabelSets.from_classes(CLASSES, [{1: [1], 2: [2, 3]}, {1: [2, 3, 4]}])
    labels, datasets = some_labels(ignore=255).clamp(max=255), torch.tensor([0, 1])
    labels[1][labels[1] == 2] = 1  # the second dataset has no label 2
    weights = torch.tensor([[0.5, 3.0, 2.0], [1.5, 4.0, 0.0]], dtype=torch.double)
    loss = CrossEntropyDiceLoss(weight_dice=0, ignore_index=255, label_sets=table, label_weights=weights)
    basis, projection, bias = case
    p = (torch.einsum("cr,br...->bc...", projection, basis) + bias[:, None, None, None]).softmax(1)
    total = divisor = 0
    for sample, dataset in enumerate(datasets):
        for label in range(3 - sample):
            inside = labels[sample] == label
            probability = p[sample, table.label_of_class[dataset] == label].sum(0)[inside]
            total = total - weights[dataset, label] * probability.log().sum()
            divisor += weights[dataset, label] * inside.sum()
    torch.testing.assert_close(loss(*case, labels, datasets), total / divisor)
    with pytest.raises(ValueError, match=r"label_weights has shape \(2, 2\); expected \(datasets, labels\)"):
        CrossEntropyDiceLoss(label_sets=table, label_weights=weights[:, :2])


def test_a_set_weighs_what_its_voxels_weigh_one_by_one():
    shares = torch.tensor([0.5, 0.25, 0.16, 0.09])
    names = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1]])
    weights = voxel_weights(shares, names, 0.5)
    torch.testing.assert_close(weights[0], shares**-0.5)
    mean = (0.16 / 0.4 + 0.09 / 0.3) / 0.25
    torch.testing.assert_close(weights[1], torch.tensor([(0.5**0.5 + 0.5) / 0.75, mean, 0, 0]))
