"""Writes blocks.bin: random blocks of every format, and what the `gguf` package (pip install gguf) reads from them.

For each format, in the order of BlockFormat::ALL: BLOCKS blocks, then their weights as float32.
"""

from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

BLOCKS = 3
FORMATS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
# Where half-precision numbers lie.
HALVES = {"Q4_1": [0, 2], "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}

rng = np.random.default_rng(7)
with open(Path(__file__).with_name("blocks.bin"), "wb") as out:
    for name in FORMATS:
        kind = GGMLQuantizationType[name]
        blocks = rng.integers(0, 256, (BLOCKS, GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
        for at in HALVES.get(name, [0]):
            blocks[:, at + 1] &= 0xBF  # not above 2: no infinities
        out.write(blocks.tobytes())
        out.write(quants.dequantize(blocks, kind).astype("<f4").tobytes())
