#!/usr/bin/env bash
# Builds the program and asks the built-in model about a picture.
set -euo pipefail
cd "$(dirname "$0")/.."

echo "Building; the first time takes a few minutes." >&2
cargo build --locked -p mistralrs-cli
for question in "What is in this picture?" "Which shape is red?" "How many shapes are there?"; do
    picture=fixtures/demo/two_shapes.png
    echo
    echo "picture:  $picture"
    echo "question: $question"
    figures=$(mktemp)
    printf 'answer:   '
    target/debug/mistralrs run --image "$picture" -i "$question" 2> "$figures"
    grep -v '^no model given' "$figures" | sed 's/^/figures:  /'
    rm "$figures"
done
