"""The networks of the training benchmark, written against any Keras, so that every contestant
trains the same one.

Each takes a namespace of layer classes: `keras.layers` of Keras 2 or 3, or one with quantized twins
in it. No `bmpq_tf` in here: the peers' environments do not have it.
"""

# Expansion, channels, repeats, stride: table 2 of Sandler et al. 2018.
_BOTTLENECKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_VGG16 = (
    64,
    64,
    "pool",
    128,
    128,
    "pool",
    256,
    256,
    256,
    "pool",
    512,
    512,
    512,
    "pool",
    512,
    512,
    512,
)


def resnet20(layers, x, classes=10):
    """ResNet-20 (He et al. 2016), 0.27 M weights, on 32x32 images."""
    x = _conv_bn(layers, x, 16)
    for filters in (16, 32, 64):
        for block in range(3):
            strides = 2 if filters > 16 and block == 0 else 1
            shortcut = _conv_bn(layers, x, filters, 1, strides, relu=False) if strides > 1 else x
            y = _conv_bn(layers, x, filters, strides=strides)
            x = layers.ReLU()(layers.Add()([_conv_bn(layers, y, filters, relu=False), shortcut]))
    return layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))


def vgg16(layers, x, classes=10):
    """VGG16 (Simonyan and Zisserman 2015) as CIFAR has it: BatchNorm, one dense layer.

    14.7 M weights, on 32x32 images.
    """
    for filters in _VGG16:
        x = layers.MaxPooling2D()(x) if filters == "pool" else _conv_bn(layers, x, filters)
    return layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))


def mobilenet_v2(layers, x, classes=10):
    """MobileNetV2 (Sandler et al. 2018), 2.2 M weights, on 96x96 images."""
    x = _conv_bn(layers, x, 32, strides=2)
    for expansion, filters, repeats, first_stride in _BOTTLENECKS:
        for repeat in range(repeats):
            strides = first_stride if repeat == 0 else 1
            y = _conv_bn(layers, x, x.shape[-1] * expansion, 1) if expansion > 1 else x
            y = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(y)
            y = layers.ReLU()(layers.BatchNormalization()(y))
            y = _conv_bn(layers, y, filters, 1, relu=False)
            x = layers.Add()([x, y]) if strides == 1 and x.shape[-1] == filters else y
    x = _conv_bn(layers, x, 1280, 1)
    return layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))


def _conv_bn(layers, x, filters, size=3, strides=1, relu=True):
    x = layers.BatchNormalization()(
        layers.Conv2D(filters, size, strides=strides, padding="same", use_bias=False)(x)
    )
    return layers.ReLU()(x) if relu else x


# Name: the network, the image's shape, the batch size of the benchmark.
NETWORKS = {
    "resnet20": (resnet20, (32, 32, 3), 128),
    "vgg16": (vgg16, (32, 32, 3), 64),
    "mobilenet_v2": (mobilenet_v2, (96, 96, 3), 32),
}
