#!/usr/bin/env bash
# Builds Millpond and starts it with the demo pipeline on 127.0.0.1:5433. Arguments are passed on to `millpond demo`.
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./setup.sh
say "Building Millpond"
cargo build --release --locked --workspace --bins # as the tests do: a part would be built with other features, anew
exec "$CARGO_TARGET_DIR/release/millpond" demo "$@"
