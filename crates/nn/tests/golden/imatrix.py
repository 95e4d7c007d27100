"""Writes imatrix.gguf and imatrix.dat: the same two entries in both forms that llama.cpp's importance matrices have.

Needs numpy and gguf (0.19); run in this folder.
"""

import struct

import gguf
import numpy

ENTRIES = {  # sums of squares and counts; no token came to the second expert
    "blk.0.attn_q.weight": ([[4.0, 8.0, 12.0, 16.0]], [8.0]),
    "blk.0.ffn_gate_exps.weight": ([[2.0, 4.0, 6.0, 8.0], [0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 3.0, 32.0]], [2.0, 0.0, 4.0]),
}
CALLS = 2

writer = gguf.GGUFWriter("imatrix.gguf", arch="")
writer.add_type("imatrix")
writer.add_array("imatrix.datasets", ["calibration.txt"])
writer.add_uint32("imatrix.chunk_count", CALLS)
writer.add_uint32("imatrix.chunk_size", 4)
writer.add_custom_alignment(16)
for name, (sums, counts) in ENTRIES.items():
    writer.add_tensor(f"{name}.in_sum2", numpy.array(sums, dtype=numpy.float32))
    writer.add_tensor(f"{name}.counts", numpy.array(counts, dtype=numpy.float32).reshape(-1, 1))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

with open("imatrix.dat", "wb") as file:
    file.write(struct.pack("<i", len(ENTRIES)))
    for name, (sums, counts) in ENTRIES.items():
        means = [value / count if count else 1.0 for row, count in zip(sums, counts) for value in row]
        file.write(struct.pack("<i", len(name)) + name.encode())
        file.write(struct.pack(f"<ii{len(means)}f", CALLS, len(means), *(mean * CALLS for mean in means)))
    file.write(struct.pack("<ii", CALLS, len("calibration.txt")) + b"calibration.txt")
