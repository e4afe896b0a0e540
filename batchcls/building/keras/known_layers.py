"""The allow-list of what a Keras file's configuration may name: layers, operations and activation functions."""

_LAYERS = (
    *("InputLayer", "Dense", "EinsumDense", "Embedding", "Activation", "Identity", "Masking", "Pipeline"),
    *("Flatten", "Reshape", "Permute", "RepeatVector"),
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianDropout", "GaussianNoise", "AlphaDropout"),
    *("Conv1D", "Conv2D", "Conv1DTranspose", "Conv2DTranspose", "SeparableConv1D", "SeparableConv2D"),
    *("DepthwiseConv1D", "DepthwiseConv2D"),
    *("MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D"),
    *("GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalAveragePooling1D", "GlobalAveragePooling2D"),
    *("AdaptiveAveragePooling2D", "AdaptiveMaxPooling2D"),
    *("ZeroPadding1D", "ZeroPadding2D", "Cropping1D", "Cropping2D", "UpSampling1D", "UpSampling2D"),
    *("BatchNormalization", "LayerNormalization", "GroupNormalization", "UnitNormalization", "RMSNormalization"),
    *("Normalization", "Rescaling", "Resizing", "CenterCrop"),
    *("ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax"),
    *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot"),
    *("Attention", "AdditiveAttention", "MultiHeadAttention", "GroupQueryAttention", "ActivityRegularization"),
    *("RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast", "RandomBrightness"),
    *("RandomCrop", "RandomHue", "RandomSaturation", "RandomSharpness", "RandomShear", "RandomGrayscale"),
    *("RandomColorJitter", "RandomColorDegeneration", "RandomErasing", "RandomGaussianBlur", "RandomInvert"),
    *("RandomPerspective", "RandomPosterization", "RandomElasticTransform", "AugMix", "RandAugment", "AutoContrast"),
    *("Equalization", "Solarization", "MixUp", "CutMix"),
)
"""Layers of keras.layers that compute with their input and their weights alone, and read no file."""
_ARITHMETIC = (
    *("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Negative", "Power", "Square", "Sqrt", "Absolute"),
    *("Maximum", "Minimum", "Clip", "Mean", "Sum", "Max", "Min", "Exp", "Log", "Tanh", "Matmul", "Einsum"),
    *("Reshape", "Transpose", "Squeeze", "ExpandDims", "Concatenate", "Stack", "GetItem", "Flip", "BroadcastTo"),
)
_NETWORK_OPERATIONS = (
    *("Relu", "Relu6", "Sigmoid", "HardSigmoid", "Softmax", "LogSoftmax", "Silu", "HardSilu", "Gelu", "Elu", "Selu"),
    *("LeakyRelu", "Softplus", "Softsign", "MaxPool", "AveragePool", "Normalize"),
)

_OF_APPLICATIONS = {
    "LayerScale": "keras.src.applications.convnext",
    "StochasticDepth": "keras.src.applications.convnext",
    "CustomScaleLayer": "keras.src.applications.inception_resnet_v2",
}
MODELS = {
    "Functional": "keras.src.models.functional",
    "Model": "keras.src.models.functional",
    "Sequential": "keras",
}
"""Modules of models by class; a ``Model`` of Keras 2 is what Keras 3 calls ``Functional``."""
CLASSES = {
    **{("", name): "keras.layers" for name in _LAYERS},
    **{("", name): module for name, module in MODELS.items()},
    **{("keras.src.ops.numpy", name): "keras.src.ops.numpy" for name in _ARITHMETIC},
    **{("keras.src.ops.nn", name): "keras.src.ops.nn" for name in _NETWORK_OPERATIONS},
    ("keras.src.ops.core", "Cast"): "keras.src.ops.core",
    ("keras.src.activations.activations", "ReLU"): "keras.src.activations.activations",
    **{(place, name): module for name, module in _OF_APPLICATIONS.items() for place in (module, "")},
}
"""Module that Keras takes a class from, by the module (empty: any module of layers) and the class that a file names."""
OPERATIONS = frozenset(_ARITHMETIC) - frozenset(_LAYERS)
"""Operations that no layer shares its name with, so that they are known without their module."""
SPECIAL_MODULES = frozenset(module for module, _ in CLASSES if module)
"""Modules whose classes are no layers of keras.layers, though they may have the same names."""
PACKAGES = ("keras", "tf_keras", "tensorflow")
"""First parts of the modules that layers of Keras come from."""
ACTIVATIONS = frozenset(
    (
        *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "swish", "mish", "glu"),
        *("softmax", "log_softmax", "sigmoid", "log_sigmoid", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh"),
        *("tanh", "tanh_shrink", "soft_shrink", "hard_shrink", "softplus", "softsign", "exponential", "squareplus"),
    )
)
"""Names of activation functions."""
FLOATS = frozenset(("float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16"))
"""Names of types and policies that a layer may compute in; an engine is built from float32."""
