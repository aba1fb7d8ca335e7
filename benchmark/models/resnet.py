"""ResNet-50 (He et al. 2016, arXiv 1512.03385, table 1) from torchvision's modules, unpooled."""

from benchmark.models.trunk import ChainTrunk, sequence


def resnet50() -> ChainTrunk:
    """Rearrange torchvision's ResNet-50 into conv1 to conv5: 100 px end as 4x4x2048.

    v1.5: a block that halves the size does so in its 3x3 convolution, where the paper and Keras
    do in the 1x1 before it.
    """
    # Imported here: torchvision takes a second, and most trunks do without.
    from torchvision.models import resnet50 as whole

    layers = whole(weights=None)
    stages = {
        "conv1": sequence(
            conv=layers.conv1, norm=layers.bn1, relu=layers.relu, pool=layers.maxpool
        ),
        "conv2": layers.layer1,
        "conv3": layers.layer2,
        "conv4": layers.layer3,
        "conv5": layers.layer4,
    }
    return ChainTrunk("resnet50", stages, layers.fc.in_features)
