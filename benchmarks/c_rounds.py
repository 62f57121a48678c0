"""Measure how long networks in C take: all in one program, in turn, round after round."""

import pathlib
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ROUNDS, IMAGES = 200, 20
"""Rounds are short, so that what else the machine does hits single ones, and not a network."""
_CALL = """\
static double seconds_{index}(void)
{{
    static {type} input[{images}][{NAME}_INPUT_SIZE];
    static {output} output[{NAME}_OUTPUT_SIZE];
    if (!is_read[{index}]) {{
        for (int n = 0; n < {images}; n++)
            for (int i = 0; i < {NAME}_INPUT_SIZE; i++)
                input[n][i] = ({type})pixels[n % COUNT * {NAME}_INPUT_SIZE + i];
        is_read[{index}] = 1;
    }}
    const clock_t start = clock();
    for (int n = 0; n < {images}; n++) {name}_predict(input[n], output);
    return (double)(clock() - start) / CLOCKS_PER_SEC / {images};
}}
"""
_MAIN = """\
int main(void)
{{
    double (*const networks[])(void) = {{{networks}}};
    int order[{count}];
    if (fread(pixels, sizeof pixels, 1, stdin) != 1) return 1;
    srand(1);
    for (int i = 0; i < {count}; i++) order[i] = i;
    for (int i = 0; i < {count}; i++) networks[i]();
    for (int round = 0; round < {rounds}; round++) {{
        double seconds[{count}];
        for (int i = {count} - 1; i > 0; i--) {{
            const int j = rand() % (i + 1), other = order[j];
            order[j] = order[i];
            order[i] = other;
        }}
        for (int i = 0; i < {count}; i++) seconds[order[i]] = networks[order[i]]();
        fwrite(seconds, sizeof seconds, 1, stdout);
    }}
    return 0;
}}
"""


class Program(NamedTuple):
    """A program is a network in C.

    Attributes:
        source: Its C file; the name is that of its functions.
        type: The type of its inputs: `"float"`, or integers, where outputs are int32.
    """

    source: pathlib.Path
    type: str


def seconds_of_rounds(
    programs: Sequence[Program],
    images: np.ndarray,
    options: Sequence[str] = ("-O2",),
    rounds: int = ROUNDS,
) -> np.ndarray:
    """Return the processor's seconds for an image, shape (rounds, programs).

    Args:
        programs: Networks that take the same samples, their sources in one folder.
        images: Samples, integers from 0 to 255 in any dtype.
        options: Options of the compiler.
        rounds: The number of rounds.
    """
    folder = programs[0].source.parent
    pixels = np.ascontiguousarray(images[:IMAGES]).astype(np.uint8)
    lines = ["#include <stdint.h>", "#include <stdio.h>", "#include <stdlib.h>"]
    lines += ["#include <time.h>", f"#define COUNT {len(pixels)}"]
    lines += [f'#include "{each.source.with_suffix(".h").name}"' for each in programs]
    lines += [f"static uint8_t pixels[{pixels.size}];", f"static int is_read[{len(programs)}];"]
    lines += [
        _CALL.format(
            index=index,
            type=each.type,
            output="float" if each.type == "float" else "int32_t",
            name=each.source.stem,
            NAME=each.source.stem.upper(),
            images=IMAGES,
        )
        for index, each in enumerate(programs)
    ]
    networks = ", ".join(f"seconds_{index}" for index in range(len(programs)))
    lines.append(_MAIN.format(networks=networks, count=len(programs), rounds=rounds))
    main, program = folder / "rounds.c", folder / "rounds"
    main.write_text("\n".join(lines))
    sources = [each.source for each in programs]
    # Each file by itself: nothing of a network is seen where it is called.
    command = ["gcc", *options, "-std=c99", *sources, main, "-o", program, "-lm"]
    subprocess.run(command, check=True)
    run = subprocess.run([program], input=pixels.tobytes(), capture_output=True, check=True)
    return np.frombuffer(run.stdout).reshape(rounds, len(programs))
