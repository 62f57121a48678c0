"""Models that other people wrote, in their smallest form, with random weights.

keras.applications: one member of each of the 14 families, for images as small as it takes.
keras-hub: backbones and tasks with one or two layers, made from their configurations; nothing is
downloaded. `MODELS` maps a name to a function that makes the model.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

CLASSES = 10
WORDS = 60
LENGTH = 12
IMAGE = (32, 32, 3)

# The smallest image side that a family takes, where that is not 32.
FAMILIES: dict[str, dict[str, Any]] = {
    "ConvNeXtTiny": {},
    "DenseNet121": {},
    "EfficientNetB0": {},
    "EfficientNetV2B0": {},
    "InceptionResNetV2": {"side": 75},
    "InceptionV3": {"side": 75},
    "MobileNet": {"alpha": 0.25},
    "MobileNetV2": {"alpha": 0.35},
    "MobileNetV3Small": {},
    "NASNetMobile": {},
    "ResNet50": {},
    "ResNet50V2": {},
    "VGG16": {},
    "Xception": {"side": 71},
}

_TEXT = {"vocabulary_size": WORDS, "num_layers": 1, "hidden_dim": 16, "intermediate_dim": 32}
_ENCODER = {**_TEXT, "num_heads": 2, "max_sequence_length": 16}
_DECODER = {**_TEXT, "num_query_heads": 4, "num_key_value_heads": 2}
_PATCHES = {
    "image_shape": IMAGE,
    "patch_size": 8,
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 32,
}
_HIERARCHY = {
    "image_shape": IMAGE,
    "layerwise_depths": [1, 1],
    "num_layers": 2,
    "hidden_dims": [8, 16],
    "layerwise_num_heads": [1, 2],
    "layerwise_sr_ratios": [2, 1],
    "max_drop_path_rate": 0.0,
    "layerwise_patch_sizes": [7, 3],
    "layerwise_strides": [4, 2],
}
BACKBONES: dict[str, dict[str, Any]] = {
    "Albert": {**_ENCODER, "embedding_dim": 8},
    "Bart": _ENCODER,
    "Bert": _ENCODER,
    "Bloom": {**_TEXT, "num_heads": 2},
    "CSPNet": {
        "stem_filters": 8,
        "stem_kernel_size": 3,
        "stem_strides": 1,
        "stackwise_depth": [1, 1],
        "stackwise_strides": [1, 2],
        "stackwise_num_filters": [8, 16],
        "block_type": "dark_block",
        "stage_type": "dark",
        "image_shape": IMAGE,
    },
    "DebertaV3": _ENCODER,
    "DeiT": {**_PATCHES, "intermediate_dim": 64, "num_labels": CLASSES},
    "DenseNet": {"stackwise_num_repeats": [1, 1], "image_shape": IMAGE, "growth_rate": 8},
    "DistilBert": _ENCODER,
    "Electra": {**_ENCODER, "vocab_size": WORDS, "embedding_dim": 16},
    "FNet": {**_TEXT, "max_sequence_length": 16},
    "Falcon": {**_TEXT, "num_attention_heads": 2},
    "GPT2": _ENCODER,
    "GPTNeoX": {**_TEXT, "num_heads": 2},
    "Gemma": {**_DECODER, "head_dim": 8},
    "Llama": _DECODER,
    "MiT": _HIERARCHY,
    "Mistral": _DECODER,
    "OPT": _ENCODER,
    "Phi3": _DECODER,
    "Qwen": _DECODER,
    "ResNet": {
        "input_conv_filters": [64],
        "input_conv_kernel_sizes": [3],
        "stackwise_num_filters": [64, 64],
        "stackwise_num_blocks": [1, 1],
        "stackwise_num_strides": [1, 2],
        "block_type": "basic_block",
        "image_shape": IMAGE,
    },
    "Roberta": _ENCODER,
    "SegFormer": {},  # around MiT
    "T5": {**_TEXT, "num_heads": 2},
    "VGG": {
        "stackwise_num_repeats": [1, 1],
        "stackwise_num_filters": [8, 16],
        "image_shape": IMAGE,
    },
    "ViT": {**_PATCHES, "mlp_dim": 64},
    "Whisper": {
        **_TEXT,
        "num_heads": 2,
        "max_encoder_sequence_length": LENGTH,
        "max_decoder_sequence_length": LENGTH,
    },
    "XLMRoberta": _ENCODER,
    "XLNet": {**_TEXT, "num_heads": 2},
}
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "BartSeq2SeqLM": ("Bart", {}),
    "BertMaskedLM": ("Bert", {}),
    "BertTextClassifier": ("Bert", {"num_classes": CLASSES}),
    "DebertaV3MaskedLM": ("DebertaV3", {}),
    "GPT2CausalLM": ("GPT2", {}),
    "GemmaCausalLM": ("Gemma", {}),
    "LlamaCausalLM": ("Llama", {}),
    "MiTImageClassifier": ("MiT", {"num_classes": CLASSES}),
    "ResNetImageClassifier": ("ResNet", {"num_classes": CLASSES}),
    "SegFormerImageSegmenter": ("SegFormer", {"num_classes": CLASSES}),
    "ViTImageClassifier": ("ViT", {"num_classes": CLASSES}),
}


def _application(name: str) -> keras.Model:
    options = dict(FAMILIES[name])
    side = options.pop("side", IMAGE[0])
    function = getattr(keras.applications, name)
    return function(weights=None, input_shape=(side, side, 3), classes=CLASSES, **options)


def _accepted(constructor: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that a constructor names: versions of keras-hub differ."""
    names = inspect.signature(constructor.__init__).parameters
    return {name: value for name, value in options.items() if name in names}


def _backbone(name: str) -> keras.Model:
    import keras_hub

    constructor = getattr(keras_hub.models, f"{name}Backbone")
    if name == "SegFormer":
        return constructor(image_encoder=_backbone("MiT"), projection_filters=8)
    return constructor(**_accepted(constructor, BACKBONES[name]))


def _task(name: str) -> keras.Model:
    import keras_hub

    backbone, options = TASKS[name]
    return getattr(keras_hub.models, name)(
        backbone=_backbone(backbone), preprocessor=None, **options
    )


def _each() -> Iterator[tuple[str, Callable[[], keras.Model]]]:
    for name in FAMILIES:
        yield name, lambda name=name: _application(name)
    for name in BACKBONES:
        yield f"{name}Backbone", lambda name=name: _backbone(name)
    for name in TASKS:
        yield name, lambda name=name: _task(name)


MODELS: dict[str, Callable[[], keras.Model]] = dict(_each())


def inputs_of(model: keras.Model, samples: int = 2) -> Any:
    """Return random inputs as the model's own inputs are named: masks of ones, words, pixels."""
    random = np.random.default_rng(0)

    def numbers(tensor: Any) -> np.ndarray:
        shape = (samples, *(LENGTH if size is None else size for size in tensor.shape[1:]))
        if "mask_positions" in tensor.name:
            return random.integers(0, LENGTH, (samples, 4)).astype("int32")
        if "mask" in tensor.name:
            return np.ones(shape, tensor.dtype)
        if "segment" in tensor.name:
            return np.zeros(shape, tensor.dtype)
        if "int" in str(tensor.dtype):
            return random.integers(1, WORDS, shape).astype(tensor.dtype)
        return random.uniform(size=shape).astype("float32")

    return keras.tree.map_structure(numbers, model.input)
