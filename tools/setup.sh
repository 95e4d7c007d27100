#!/usr/bin/env bash
# Installs what is missing of the system: tools/setup.sh [cc] [ffmpeg] [python] [node]
# With root (or sudo without a password) through the package manager; otherwise says what to install. Only a C compiler and
# Rust are indispensable: tests that lack another tool are skipped, with a line that says so.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v cargo > /dev/null; then
    echo "Rust is missing: see https://rustup.rs" >&2
    exit 1
fi

have() {
    case $1 in
        cc) command -v cc || command -v gcc || command -v clang ;;
        ffmpeg) command -v ffmpeg && command -v ffprobe ;;
        python) python3 -c 'import venv, ensurepip' ;;
        node) command -v node && command -v npm ;;
    esac > /dev/null 2>&1
}

# Packages by tool, for apt-get, dnf, pacman, apk and brew.
packages() {
    case $1:$2 in
        cc:apt-get) echo gcc libc6-dev ;;
        cc:apk) echo gcc musl-dev ;;
        cc:*) echo gcc ;;
        ffmpeg:*) echo ffmpeg ;;
        python:apt-get) echo python3 python3-venv ;;
        python:dnf | python:apk) echo python3 ;;
        python:*) echo python ;;
    esac
}

install() {
    local as_root=()
    if [ "$(id -u)" != 0 ]; then
        if sudo -n true 2> /dev/null; then as_root=(sudo -n); elif ! command -v brew > /dev/null; then return 1; fi
    fi
    # shellcheck disable=SC2046
    if command -v apt-get > /dev/null; then
        "${as_root[@]}" apt-get update -qq && "${as_root[@]}" apt-get install -y -qq $(packages "$1" apt-get)
    elif command -v dnf > /dev/null; then
        "${as_root[@]}" dnf install -y -q $(packages "$1" dnf)
    elif command -v pacman > /dev/null; then
        "${as_root[@]}" pacman -S --noconfirm --needed $(packages "$1" pacman)
    elif command -v apk > /dev/null; then
        "${as_root[@]}" apk add -q $(packages "$1" apk)
    elif command -v brew > /dev/null; then
        brew install -q $(packages "$1" brew)
    else
        return 1
    fi > /dev/null
}

for tool in "$@"; do
    # One test in many needs node, which is large: it is used where it is, and not installed.
    if [ "$tool" = node ] && ! have node; then continue; fi
    if ! have "$tool" && ! { install "$tool" && have "$tool"; }; then
        echo "please install $tool (packages: $(packages "$tool" apt-get))" >&2
        [ "$tool" = cc ] && exit 1
    fi
    # Python packages go to an environment of the project's own.
    if [ "$tool" = python ] && have python && ! cmp -s tests/requirements.txt .venv/ready; then
        if python3 -m venv .venv && .venv/bin/pip install -q --disable-pip-version-check -r tests/requirements.txt; then
            cp tests/requirements.txt .venv/ready
        else
            echo "the Python packages of tests/requirements.txt could not be installed" >&2
        fi
    fi
    # Packages of node lie beside the test that needs them.
    if [ "$tool" = node ] && have node && [ ! -e tests/e2e/node/node_modules/ai ]; then
        npm install --silent --no-audit --no-fund --no-package-lock --prefix tests/e2e/node \
            || echo "the packages of tests/e2e/node could not be installed" >&2
    fi
done
