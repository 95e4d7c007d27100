#!/usr/bin/env bash
# Tests of the kernels for aarch64 on a machine of another kind: tools/aarch64/test.sh [name of a test ...]
#
# They are cross-compiled and run by QEMU, which emulates single programs. On Debian and Ubuntu that takes the packages qemu-user,
# gcc-aarch64-linux-gnu and libc6-dev-arm64-cross, and Rust's target: rustup target add aarch64-unknown-linux-gnu.
#
# QEMU's processor "max" has every instruction set, and tests take all that a processor has: the first run is the one that counts.
# The others have NEON alone, or dot products as well; they would stop at an instruction that they lack, and so show that nothing is
# used that was not detected. Emulation is some tens of times slower than a machine, and says nothing of speed.
set -euo pipefail
cd "$(dirname "$0")/../.."

for tool in qemu-aarch64 aarch64-linux-gnu-gcc; do
    command -v "$tool" > /dev/null || { echo "$tool is missing: see the top of $0" >&2; exit 1; }
done

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc

run() {
    local processor=$1
    shift
    echo "processor: $processor" >&2
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu $processor" \
        cargo test -p mistralrs-kernels --locked --target aarch64-unknown-linux-gnu "$@"
}

run max --lib --tests -- "$@"
for processor in cortex-a53 neoverse-n1; do
    run "$processor" --lib --test quantised -- a_row_depends a_loop_runs
done
