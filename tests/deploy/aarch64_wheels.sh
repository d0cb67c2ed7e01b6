#!/bin/bash
# Every dependency of fedfleet[device] has a wheel for 64-bit ARM: nothing is compiled on a device.
#   tests/deploy/aarch64_wheels.sh [EXTRA...]      default: device
# PYTHONS: versions asked for. PYTHON: the interpreter whose pip asks. Exit code 0: all are wheels.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# glibc 2.28 and older: Ubuntu 20.04 (JetPack 5), Debian 11, Raspberry Pi OS 11, and newer ones.
platforms=(--platform manylinux2014_aarch64)
for minor in $(seq 17 28); do platforms+=(--platform "manylinux_2_${minor}_aarch64"); done

"$python" deploy/docker/requirements.py "${@:-device}" >"$folder/requirements.txt"
for version in ${PYTHONS:-3.10 3.11 3.12}; do
    "$python" -m pip download --quiet --disable-pip-version-check --only-binary=:all: \
        --implementation cp --python-version "$version" "${platforms[@]}" \
        --dest "$folder/$version" --requirement "$folder/requirements.txt"
    if ls "$folder/$version" | grep -i '^torch-'; then
        echo "torch is among the dependencies" >&2
        exit 1
    fi
    printf '\nPython %s, aarch64: %s wheels, %s\n' "$version" \
        "$(ls "$folder/$version" | wc -l)" "$(du -sh "$folder/$version" | cut -f1)"
    ls "$folder/$version" | sed -E 's/\.whl$//' |
        awk -F- '{ printf "  %-20s %-12s %s\n", $1, $2, $NF }'
done
