#!/usr/bin/env bash
# Runs all tests. Arguments are passed on to the test runner, for example a part of a test's name.
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./setup.sh
say "Building Millpond and its tests"
cargo build --release --locked --workspace --bins
if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --release --locked --workspace --no-fail-fast "$@"
else
  cargo test --release --locked --workspace --no-fail-fast "$@"
fi
