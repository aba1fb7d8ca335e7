"""Every network of the study has its parameters, to the last one, in all and trained.

What the study printed: thesis notebooks, §1. Where Keras counts what torch does not have, the test
says so. Networks are built by their definitions on the meta device, which holds no values.
"""

import torch

from benchmark import registry
from benchmark.models.network import build_network

VGG16_MTL = {
    # frozen, block 5, with embedding, gate, attention, full; from ImageNet, then from VGGFace
    "1": (14_913_228, 198_540), "2": (14_913_228, 7_277_964), "3": (14_945_996, 7_310_732),
    "4": (14_979_278, 7_344_014), "5": (15_012_044, 7_376_780), "6": (14_913_228, 14_913_228),
}  # fmt: skip
PRINTED = {f"{table}.{row}": counts for table in (2, 3) for row, counts in VGG16_MTL.items()} | {
    # one task: gender, age group, race; block 5 and full
    "5.1a": (14_780_610, 7_145_346), "5.1b": (14_780_610, 14_780_610),
    "5.2a": (14_780_997, 7_145_733), "5.2b": (14_780_997, 14_780_997),
    "5.3a": (14_780_997, 7_145_733), "5.3b": (14_780_997, 14_780_997),
    # VGG19: block 5, full
    "6.1": (20_222_924, 9_637_772), "6.2": (20_222_924, 20_222_924),
    # ResNet50: 24,376,076 in Keras, which has 26,560 biases that torch's has not, and counts the
    # 53,120 running statistics of batch norm; frozen, full
    "7.1": (24_296_396, 788_364), "7.3": (24_296_396, 24_296_396),
    # DenseNet121: 7,432,652 in Keras with 83,648 running statistics; frozen, full
    "8.1": (7_349_004, 395_148), "8.2": (7_349_004, 7_349_004),
    # flattened features: plain, embedding, gate; age group, gender, race alone
    "R1": (16_486_092, 8_850_828), "R2": (16_518_860, 8_883_596), "R3": (16_552_142, 8_916_878),
    "R4": (15_305_285, 7_670_021), "R5": (15_304_898, 7_669_634), "R6": (15_305_285, 7_670_021),
}  # fmt: skip
"""Row of the study → parameters in all, and those trained."""


def test_a_row_of_the_study_has_the_parameters_that_it_printed() -> None:
    networks = []
    for experiment in registry.experiments().values():
        if experiment.study is not None:
            with torch.device("meta"):
                bare = experiment.adjusted({"backbone.weights": "none"})
                network = build_network(bare, None, seed=0)
            networks.append((experiment.study.row, network))
    assert {row for row, _ in networks} >= PRINTED.keys()
    for row, network in networks:
        assert network.parameter_counts() == PRINTED.get(row, network.parameter_counts()), row
    # The statistics that Keras counts.
    buffers = {row: network.backbone.named_buffers() for row, network in networks}
    for row, n_statistics in (("7.3", 53_120), ("8.2", 83_648)):
        found = sum(it.numel() for name, it in buffers[row] if ".running_" in name)
        assert found == n_statistics, row
