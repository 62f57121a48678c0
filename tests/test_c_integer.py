"""The C in integers gives the reference's integers, without a float and without a warning."""

import pathlib
import platform
import re
import shutil
import subprocess

import keras
import numpy as np
import pytest
from keras import layers

import quantal
from conftest import numpy, on_one_backend
from quantal import Discrete, DiscreteActivation, to_integer
from quantal._export.c.text import names_in_c
from quantal._export.c.vectors import Vectors, check_program
from quantal._export.c_integer.checking import checked, drawn_codes
from quantal._export.c_integer.encoding import encoding_of
from quantal._export.c_integer.program import IntegerSource
from quantal._export.object_size import object_size
from test_integer import (
    CONVNETS,
    convnet,
    graph,
    mobile_block,
    normalizations,
    pooled_sums,
    sequences,
    single_numbers,
)

# The reference is compared with Keras on every backend, and the C with the reference on one.
pytestmark = [on_one_backend, pytest.mark.usefixtures("numbers_from_numpy")]
needs_gcc = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="gcc, which compiles the C, is not installed"
)
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-pedantic", "-std=c99", "-Werror"]
SANITIZED = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
CORTEX_M = {
    "cortex-m3": ["lm3s6965evb", "64K"],
    "cortex-m0": ["microbit", "16K"],
}
LAYERS = [mobile_block, single_numbers, sequences, normalizations]


def gcc(*arguments):
    subprocess.run(["gcc", *WARNINGS, *map(str, arguments)], check=True, timeout=60)


def vectors_pass(source, *options):
    """Whether the program of test vectors, compiled with these options, says that all are right."""
    program = source.with_name("program")
    gcc(*options, source, source.with_name("net_check.c"), "-o", program)
    run = subprocess.run([program], capture_output=True, text=True, timeout=60)
    assert re.fullmatch(r"\d+ of [1-9]\d* outputs are wrong\n", run.stdout)
    return run.returncode == 0


def exported(model, folder, **arguments):
    return quantal.export(model, folder / "net.c", "c_integer", **arguments)


@needs_gcc
@pytest.mark.product
@pytest.mark.parametrize("name", CONVNETS)
def test_convnets(name, tmp_path, random):
    """The program that is written beside checks samples drawn at the ends of all ranges, too."""
    report = exported(convnet(random, **CONVNETS[name]), tmp_path, check=False)
    assert [path.name for path in report.paths] == ["net.c", "net.h", "net_check.c"]
    assert vectors_pass(report.paths[0], *SANITIZED)
    assert vectors_pass(report.paths[0], "-O2", "-DNET_WITHOUT_PRODUCTS")


@needs_gcc
def test_graphs(tmp_path, random):
    report = exported(graph(random), tmp_path, check=False)
    assert vectors_pass(report.paths[0], *SANITIZED)
    text = (tmp_path / "net.h").read_text()
    assert "net_predict(const int8_t *input_1, const uint8_t *input_2, int32_t *output_1" in text
    for name in (
        "INPUT_1_SIZE 72",
        "OUTPUT_1_SIZE 3",
        "OUTPUT_2_SIZE 48",
        "OUTPUT_2_SCALE 0.0199999996f",
    ):
        assert f"#define NET_{name}" in text


@needs_gcc
def test_pooled_sums(tmp_path, random):
    report = exported(pooled_sums(random), tmp_path, check=False)
    assert vectors_pass(report.paths[0], *SANITIZED)


@needs_gcc
@pytest.mark.product
@pytest.mark.parametrize("make", LAYERS)
def test_layers(make, tmp_path, random):
    source = exported(make(random), tmp_path, check=False).paths[0]
    assert vectors_pass(source, *SANITIZED)
    assert not re.search(r"\b(float|double|malloc)\b", source.read_text())
    if platform.machine() in ("x86_64", "aarch64"):
        gcc("-O2", "-mgeneral-regs-only", "-c", source, "-o", tmp_path / "net.o")


ENCODINGS = {
    "signs": [1, -1],
    "bits": [0, 1],
    "ternary": [-1, 0, 1],
    "shifts": [1, -1, 2, -4],
    "shifts with 0": [0, 1, -2, 8],
    "three bits": [3, -1, 0, 7, 5],
    "integers": np.arange(-100, 100),
    "two bytes": [1, 30000, -7],
}


@needs_gcc
def test_encodings(tmp_path, random):
    """One network with a layer for each way to store weights; codes cross bytes in all of them."""
    inputs = keras.Input((11,))
    names = ["signs", "bits", "ternary", "shifts", "shifts", "listed", "integers", "listed"]
    outputs = []
    for index, values in enumerate(ENCODINGS.values()):
        layer = Discrete(layers.Dense(30, name=f"dense_{index}"), values)
        outputs.append(layer(inputs))
        values = np.asarray(values)
        layer.set_weights([random.choice(values, size=(11, 30)), random.normal(size=30)])
    integer = to_integer(keras.Model(inputs, outputs))
    products = [node.step for node in integer.program.nodes if hasattr(node.step, "weights")]
    assert [encoding_of(step.weights).name for step in products] == names
    for step, values in zip(products, ENCODINGS.values(), strict=True):
        assert set(np.unique(step.weights)) <= set(np.asarray(values).tolist())
    source = exported(integer, tmp_path, check=False).paths[0]
    assert vectors_pass(source, *SANITIZED)
    assert vectors_pass(source, *SANITIZED, "-DNET_WITHOUT_PRODUCTS")


def windows(values):
    """Convolutions of all kinds: few and many numbers side by side, apart, in groups, spread."""
    inputs = keras.Input((7, 9, 18))
    first = keras.Input((5, 40, 1))
    kinds = [
        (first, layers.Conv2D(3, (3, 2), padding="same")),  # gathered
        (first, layers.Conv2D(2, (2, 30), strides=(1, 3), padding="same")),
        (inputs, layers.Conv2D(5, (3, 4), padding="same", strides=(2, 1))),  # whole rows
        (inputs, layers.Conv2D(3, 2, dilation_rate=2)),  # columns of 18
        (inputs, layers.Conv2D(6, 3, padding="same", groups=6)),  # columns of 3
        (inputs, layers.DepthwiseConv2D(3, depth_multiplier=2)),
        (inputs, layers.Conv2DTranspose(2, 3, strides=2, padding="same")),
        (inputs, layers.Dense(4)),
        (layers.Flatten()(inputs), layers.Dense(3)),  # pieces, the last one short
    ]
    outputs = []
    for source, layer in kinds:
        source = DiscreteActivation("unsigned:8", scale=None)(source)
        outputs.append(Discrete(layer, values)(source))
    return keras.Model([inputs, first], outputs)


@needs_gcc
@pytest.mark.parametrize("values", ["ternary", [3, -1, 0, 7, 5]])
def test_windows(values, tmp_path):
    """Codes that cross bytes are unpacked for rows of positions at once, or in pieces."""
    source = exported(windows(values), tmp_path, check=False).paths[0]
    text = source.read_text()
    for name in ("patches", "products", "dense"):
        assert re.search(rf"^    {name}_\w+\(&window", text, re.MULTILINE)
    assert re.search(r"^    products_\w+\(&window_\d+, 4, ", text, re.MULTILINE)
    assert vectors_pass(source, *SANITIZED)
    assert vectors_pass(source, "-O2", "-DNET_WITHOUT_PRODUCTS")


def binary_network():
    convolution = layers.Conv2D(33, 3, padding="same", use_bias=False)
    return keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            DiscreteActivation("binary"),
            Discrete(convolution, "binary"),
            DiscreteActivation("binary"),
            layers.Flatten(),
            Discrete(layers.Dense(2, use_bias=False), "binary"),
        ]
    )


@needs_gcc
def test_signs_times_signs_are_counted_bits(tmp_path):
    """Padding adds nothing; the counting without GNU's builtin gives the same."""
    source, header, _ = exported(binary_network(), tmp_path, check=False).paths
    text = source.read_text()
    assert "__builtin_popcount" in text
    assert "number" not in text
    assert "562 XNORs of 32 signs" in header.read_text()
    assert vectors_pass(source)
    portable = text.replace("#if defined(__GNUC__)", "#if 0")
    assert portable != text
    source.write_text(portable)
    assert vectors_pass(source, *SANITIZED)


@needs_gcc
def test_no_float_is_in_the_object(tmp_path, random):
    """A compiler that may use neither floats nor vectors takes it; it does not take float C."""
    if platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("gcc has -mgeneral-regs-only on x86 and Arm")
    model = convnet(random, **CONVNETS["four values, scaled"])
    options = ["-O2", "-mgeneral-regs-only", "-c", "-o", tmp_path / "net.o"]
    gcc(*options, exported(model, tmp_path, check=False).paths[0])
    assert not re.search(r"\b(float|double|malloc)\b", (tmp_path / "net.c").read_text())
    source = quantal.export(model, tmp_path / "float.c", check=False).paths[0]
    with pytest.raises(subprocess.CalledProcessError):
        gcc(*options, source)


@needs_gcc
def test_export_compares_with_the_reference(tmp_path, random):
    model = convnet(random, **CONVNETS["powers of two, 8 bits"])
    integer = to_integer(model)
    images = random.integers(256, size=(5, 8, 8, 1))
    report = exported(integer, tmp_path, inputs=images)
    text = str(report)
    assert "the same integers as the reference in NumPy on 5 samples" in text
    assert re.search(r"a sample takes [\d,]+ additions, [\d,]+ shifts, [\d,]+ products", text)
    flash, ram = (int(n.replace(",", "")) for n in re.findall(r"(?:flash|RAM) ([\d,]+) b", text))
    header = (tmp_path / "net.h").read_text()
    weights, buffers = (
        int(re.search(rf"_{n}_BYTES (\d+)", header)[1]) for n in ("WEIGHT", "BUFFER")
    )
    assert weights < flash < weights + 3000
    assert buffers <= ram <= buffers + 32
    another = to_integer(convnet(random, **CONVNETS["powers of two, 8 bits"]))
    with pytest.raises(ValueError, match=r"of which \d+ differ from the integer reference"):
        checked(report.paths[0], "net", another, drawn_codes(another))


@needs_gcc
def test_vectors_see_a_wrong_output(tmp_path, random):
    source = exported(convnet(random, **CONVNETS["ternary, 4 bits"]), tmp_path, check=False).paths[
        0
    ]
    text = source.read_text()
    changed = re.sub(r"(limits_1\[\d+\] = \{\n    )(-?\d+)", r"\g<1>-99999", text, count=1)
    assert changed != text
    source.write_text(changed)
    assert not vectors_pass(source)


def test_what_takes_which_operations():
    model = keras.Sequential(
        [
            keras.Input((10,)),
            Discrete(layers.Dense(3, use_bias=False), "ternary"),
            DiscreteActivation("unsigned:2"),
            Discrete(layers.Dense(2, use_bias=False), [1, -1, 0.5, -0.5]),
        ]
    )
    source = IntegerSource(to_integer(model))
    assert str(source.operations) == "36 additions, 6 shifts, 9 comparisons"


def test_refusals(tmp_path):
    integer = to_integer(binary_network())
    with pytest.raises(ValueError, match=r"'onnx' for an IntegerModel. Expected one of c_integer"):
        quantal.export(integer, tmp_path / "net.onnx", "onnx")
    with pytest.raises(ValueError, match=r"Expected a name that a C source can include"):
        quantal.export(integer, tmp_path / "a?.c")
    assert names_in_c(pathlib.Path("3-a.c")).name == "model_3_a"
    assert list(tmp_path.iterdir()) == []


def skip_without(tool):
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed: apt-get install gcc-arm-none-eabi qemu-system-arm")


def linked(source, target, cpu, folder):
    """A program for a Cortex-M: the network, its test vectors, and a start."""
    startup = pathlib.Path(__file__).parent / "cortex_m"
    machine = [f"-mcpu={cpu}", "-mthumb", "-Os"]
    objects = []
    for file in (source, source.with_name("net_check.c"), startup / "startup.c"):
        objects.append(folder / f"{file.stem}.o")
        flags = WARNINGS if target == "c_integer" and file == source else ["-std=c99"]
        compile_one = ["arm-none-eabi-gcc", *machine, *flags, "-c", file, "-o", objects[-1]]
        subprocess.run(compile_one, check=True, timeout=60)
    program = folder / "program.elf"
    symbols = ["-Wl,--defsym=RAM_START=0x20000000", f"-Wl,--defsym=RAM_LENGTH={CORTEX_M[cpu][1]}"]
    link = ["arm-none-eabi-gcc", *machine, "--specs=rdimon.specs", "-nostartfiles", *symbols]
    script = ["-T", startup / "memory.ld", *objects, "-lm", "-o", program]
    subprocess.run([*link, *script], check=True, timeout=60)
    return program


def emulated(program, cpu):
    """What a program prints in the emulator of a board, and what it returns."""
    command = ["qemu-system-arm", "-machine", CORTEX_M[cpu][0], "-nographic", "-monitor", "none"]
    command += ["-serial", "none", "-semihosting-config", "enable=on,target=native"]
    return subprocess.run(
        [*command, "-kernel", program], capture_output=True, text=True, timeout=120
    )


@pytest.mark.slow
@pytest.mark.parametrize("cpu", CORTEX_M)
@pytest.mark.parametrize("target", ["c", "c_integer"])
def test_vectors_pass_on_a_cortex_m(cpu, target, tmp_path, random):
    """Cross-compiled without a warning, and run in QEMU: integers, and floats in software."""
    for tool in ("arm-none-eabi-gcc", "qemu-system-arm"):
        skip_without(tool)
    model = convnet(random, **CONVNETS["four values, scaled"])
    source = quantal.export(model, tmp_path / "net.c", target, check=False).paths[0]
    if target == "c":
        pixels = random.integers(256, size=(3, 8, 8, 1)).astype(np.float32)
        expected = numpy(model(pixels, training=False))
        samples = [Vectors("float", pixels.reshape(3, -1))], [Vectors("float", expected)]
        text = check_program("net.h", "net", *samples, bound=1e-5)
        (tmp_path / "net_check.c").write_text(text)
    run = emulated(linked(source, target, cpu, tmp_path), cpu)
    assert re.fullmatch(r"0 of [1-9]\d* outputs are wrong\n", run.stdout), run.stderr
    assert run.returncode == 0
    size = object_size(source, "arm-none-eabi-gcc", ["-Os", f"-mcpu={cpu}", "-mthumb"])
    assert 0 < size.text < 4096
    assert size.data == 0


@pytest.mark.slow
@pytest.mark.parametrize("cpu", CORTEX_M)
@pytest.mark.parametrize("make", LAYERS)
def test_layers_pass_on_a_cortex_m(make, cpu, tmp_path, random):
    """Roots, divisions and products of 64 bits come from the compiler's own library."""
    for tool in ("arm-none-eabi-gcc", "qemu-system-arm"):
        skip_without(tool)
    source = exported(make(random), tmp_path, check=False).paths[0]
    run = emulated(linked(source, "c_integer", cpu, tmp_path), cpu)
    assert re.fullmatch(r"0 of [1-9]\d* outputs are wrong\n", run.stdout), run.stderr
    assert run.returncode == 0
