#!/usr/bin/env bash
# Makes a fresh Debian machine ready to build Millpond: system packages, a Rust toolchain, a shared build folder.
# To be sourced: it exports CARGO_TARGET_DIR.
set -euo pipefail
say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

need=()
command -v c++ >/dev/null || need+=(build-essential)
command -v psql >/dev/null || need+=(postgresql-client)
command -v git >/dev/null || need+=(git)
[ -n "$(find /usr/lib \( -name 'libclang.so*' -o -name 'libclang-[0-9]*.so*' \) -print -quit 2>/dev/null)" ] || need+=(libclang-dev)
[ -n "$(find /usr/lib -path '*clang*/include/stddef.h' -print -quit 2>/dev/null)" ] || need+=(libclang-dev)
if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then PATH="$HOME/.cargo/bin:$PATH"; fi
command -v cargo >/dev/null || need+=(rustup)
if [ "${#need[@]}" -gt 0 ]; then
  say "Installing system packages: ${need[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${need[@]}" >/dev/null
fi
if ! cargo --version >/dev/null 2>&1; then
  say "Installing the Rust toolchain"
  rustup default stable
fi

# Builds are shared between checkouts with the same compiler, so that RocksDB and DataFusion are built once.
if [ -z "${CARGO_TARGET_DIR:-}" ]; then
  export CARGO_TARGET_DIR="${XDG_CACHE_HOME:-$HOME/.cache}/millpond/target-rust-$(rustc -V | cut -d' ' -f2)"
fi
mkdir -p "$CARGO_TARGET_DIR"
[ -d "$CARGO_TARGET_DIR/release" ] || say "First build on this machine: RocksDB and DataFusion are compiled once, about 25 minutes on 2 cores."
