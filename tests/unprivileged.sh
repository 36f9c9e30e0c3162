#!/usr/bin/env bash
# Called by tests/run as another user, with its home in HOME: runs the tests that start a real QEMU, from the archive.
set -euo pipefail
cd "$HOME"
umask 022
mkdir -p tmp
export TMPDIR=$HOME/tmp VMTASK_TEST_DATA_DIR=$HOME/data VMTASK_DATA_DIR=$HOME/data
./cargo-nextest nextest run --archive-file tests.tar.zst --workspace-remap "$HOME/workspace" --no-fail-fast \
    -E 'binary(/real/) & (package(vmtask-qemu) | package(vmtask))'
