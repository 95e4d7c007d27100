"""Draws the pictures and questions that the project's tests ask the demo model: they are held out, the training never sees them.

    python heldout.py OUT [--pictures 60]

Writes OUT/0.png ... and OUT/questions.jsonl: {"picture", "kind", "question", "answer"}, one line each. The kinds are those that the
model must know: colours, shapes, counts and places.
"""

import argparse
import json
import random
from pathlib import Path

from PIL import Image

import data
import train

KINDS = ["colour", "shape", "count", "where", "place"]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("out", type=Path)
parser.add_argument("--pictures", type=int, default=60)
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
with open(args.out / "questions.jsonl", "w") as file:
    for number in range(args.pictures):
        rng = random.Random(f"held out/test/{number}")
        rows, columns = rng.choices(list(train.GRIDS), list(train.GRIDS.values()))[0]
        scene = data.shape_scene(rng, columns * data.CELL, rows * data.CELL)
        asked = [(kind, found) for kind in KINDS if (found := data.ask(scene, rng, kind))]
        picture = f"{number}.png"
        Image.fromarray(data.paint(scene, rng)[0]).save(args.out / picture, optimize=True)
        for kind, found in asked:
            question, answer = found[-2:]
            file.write(json.dumps({"picture": picture, "kind": kind, "question": question, "answer": answer}) + "\n")
