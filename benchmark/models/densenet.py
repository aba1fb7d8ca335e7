"""DenseNet-121 (Huang et al. 2017, arXiv 1608.06993) from torchvision's modules, unpooled."""

from torch import nn

from benchmark.models.trunk import ChainTrunk, sequence


def densenet121() -> ChainTrunk:
    """Rearrange torchvision's DenseNet-121: each dense block with the transition that halves it.

    The last block ends with the norm and the ReLU that come before pooling. 100 px end as
    3x3x1024.
    """
    # Imported here: torchvision takes a second, and most trunks do without.
    from torchvision.models import densenet121 as whole

    layers = whole(weights=None)
    features = layers.features
    stages = {
        "conv1": sequence(
            conv=features.conv0, norm=features.norm0, relu=features.relu0, pool=features.pool0
        ),
        "denseblock1": sequence(block=features.denseblock1, transition=features.transition1),
        "denseblock2": sequence(block=features.denseblock2, transition=features.transition2),
        "denseblock3": sequence(block=features.denseblock3, transition=features.transition3),
        "denseblock4": sequence(
            block=features.denseblock4, norm=features.norm5, relu=nn.ReLU(inplace=True)
        ),
    }
    return ChainTrunk("densenet121", stages, layers.classifier.in_features)
