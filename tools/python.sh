#!/usr/bin/env bash
# Builds the Python module as the tests build everything else, and lays it into its package, where pytest and PYTHONPATH find it.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --workspace --locked --lib --bins --tests
for library in target/debug/lib_native.so target/debug/lib_native.dylib; do
    if [ -e "$library" ]; then cp "$library" crates/python/mistralrs/_native.abi3.so; fi
done
