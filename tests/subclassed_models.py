"""Models written as classes, as people write them: blocks in lists, dicts, tuples and closures."""

import keras
import numpy as np
import tensorflow as tf

L = keras.layers
registered = keras.saving.register_keras_serializable("tests")


@registered
class ResidualBlock(L.Layer):
    """Two convolutions, and a third on the way past them where the size changes."""

    def __init__(self, filters, stride=1, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.stride = filters, stride
        self.convolutions = [
            L.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False),
            L.Conv2D(filters, 3, padding="same", use_bias=False),
        ]
        self.norms = (L.BatchNormalization(), L.BatchNormalization())
        self.relu = L.ReLU()
        self.past = L.Conv2D(filters, 1, strides=stride) if stride > 1 else None

    def call(self, x, training=None):
        y = self.relu(self.norms[0](self.convolutions[0](x), training=training))
        y = self.norms[1](self.convolutions[1](y), training=training)
        return keras.ops.relu(y + (x if self.past is None else self.past(x)))

    def get_config(self):
        return {**super().get_config(), "filters": self.filters, "stride": self.stride}


@registered
class ResNet(keras.Model):
    """Blocks in a list, heads in a dict."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stem = L.Conv2D(4, 3, padding="same", activation="relu", name="stem")
        self.blocks = [ResidualBlock(4), ResidualBlock(16, 2)]
        self.pool = L.GlobalAveragePooling2D()
        self.heads = {"class": L.Dense(3, name="head")}

    def call(self, images, training=None):
        x = self.stem(images)
        for block in self.blocks:
            x = block(x, training=training)
        return self.heads["class"](self.pool(x))


@registered
class TransformerBlock(L.Layer):
    """Attention, and two dense layers in a sequential model that is built by its first call."""

    def __init__(self, width=4, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.attention = L.MultiHeadAttention(2, 3)
        self.dense = keras.Sequential([L.Dense(6, activation="relu"), L.Dense(width)])
        self.norm = L.LayerNormalization()

    def call(self, x, training=None):
        return self.norm(x + self.dense(x + self.attention(x, x)))

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@registered
class Reader(keras.Model):
    """Transformer blocks in a tuple."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.table = L.Embedding(20, 4)
        self.blocks = (TransformerBlock(), TransformerBlock())
        self.head = L.Dense(3)

    def call(self, indices):
        x = self.table(indices)
        for block in self.blocks:
            x = block(x)
        return self.head(keras.ops.mean(x, axis=1))


@registered
class Autoencoder(keras.Model):
    """A functional model and a sequential one that is not built, inside a class."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        inputs = keras.Input((16,))
        self.encoder = keras.Model(inputs, L.Dense(4, activation="relu")(inputs))
        self.decoder = keras.Sequential([L.Dense(12, activation="relu"), L.Dense(16)])

    def call(self, x):
        return self.decoder(self.encoder(x))


@registered
class Twice(keras.Model):
    """One layer under two names, in a tuple inside a list and in a closure, called three times."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = L.Dense(8)
        self.shared = self.again = L.Dense(8)
        self.listed = [("shared", self.shared)]
        self.function = lambda x: keras.ops.tanh(self.shared(x))
        self.depthwise = L.DepthwiseConv1D(2)
        self.head = L.Dense(2)

    def call(self, x):
        x = self.function(self.listed[0][1](self.again(self.first(x))))
        pair = self.depthwise(keras.ops.stack([x, x], axis=1))
        return self.head(keras.ops.reshape(pair, (-1, 8)))


@registered
class OfTensorFlow(keras.Model):
    """Its code cannot be followed: TensorFlow's functions take no symbolic values of Keras."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.depthwise = L.DepthwiseConv2D(3)
        self.head = L.Dense(3)

    def call(self, images):
        return self.head(tf.reduce_mean(tf.nn.relu(self.depthwise(images)), [1, 2]))


@registered
class TwoInputs(keras.Model):
    """Two arguments and a dict of answers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.left, self.right = L.Dense(4), L.LSTM(4)
        self.head = L.Dense(2)

    def call(self, vector, sequence):
        return {"answer": self.head(self.left(vector) + self.right(sequence))}


def reader_of_layers() -> keras.Model:
    """The transformer as a functional model of blocks of one's own."""
    inputs = keras.Input((6,), dtype="int32")
    x = TransformerBlock()(TransformerBlock()(L.Embedding(20, 4)(inputs)))
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling1D()(x)))


random = np.random.default_rng(0)
IMAGES = random.standard_normal((16, 8, 8, 3)).astype("float32")
INDICES = random.integers(0, 20, (16, 6)).astype("int32")
VECTORS = random.standard_normal((16, 16)).astype("float32")
SEQUENCES = random.standard_normal((16, 4, 5)).astype("float32")
# Each with inputs, and how many kernels it has.
MODELS = {
    "resnet": (ResNet, IMAGES, 7),
    "reader": (Reader, INDICES, 14),
    "reader of layers": (reader_of_layers, INDICES, 14),
    "autoencoder": (Autoencoder, VECTORS, 3),
    "twice": (Twice, VECTORS, 4),
    "of tensorflow": (OfTensorFlow, IMAGES, 2),
}
