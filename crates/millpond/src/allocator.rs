//! The allocator of server and benchmark: mimalloc, which keeps freed memory for some seconds where there is much.
//!
//! An epoch makes large arrays that live for one step. Given back to the kernel and got again, their pages are zeroed
//! each time, which was a quarter to two thirds of the CPU time of queries with wide state (`docs/performance.md`).
#![allow(unsafe_code)] // calls into the allocators

use std::ffi::{c_int, c_long};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A server that may use less than this gives memory back at once, and does without huge pages, of which a part is seldom used.
const FRUGAL_BELOW: u64 = 4 << 30;

/// `mi_option_purge_delay` in `mimalloc.h`.
const PURGE_DELAY: c_int = 15;
/// Some epochs and checkpoints, and soon enough for a server that has become idle.
const PURGE_DELAY_MS: c_long = 10_000;
/// `PR_SET_THP_DISABLE` in `linux/prctl.h`.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const THP_DISABLE: c_int = 41;
/// `M_ARENA_MAX`, `M_MMAP_THRESHOLD` and `M_TRIM_THRESHOLD` in `malloc.h`: of the C library's allocator, which RocksDB uses.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENA_MAX: c_int = -8;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MMAP_THRESHOLD: c_int = -3;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const TRIM_THRESHOLD: c_int = -1;
/// More is got from the kernel, and given back, on its own. Left to itself the library raises this when such memory is freed, up to 32 MB.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MMAP_BYTES: c_int = 128 << 10;
/// So much may stay unused at the end of the heap.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const TRIM_BYTES: c_int = 256 << 10;

unsafe extern "C" {
    fn mi_option_set_default(option: c_int, value: c_long);
}

/// For a server that may use so many bytes; before there are other threads. `MIMALLOC_PURGE_DELAY` in the environment takes precedence.
pub fn configure(memory: u64) {
    let delay = if memory < FRUGAL_BELOW { 0 } else { PURGE_DELAY_MS };
    // SAFETY: the function of mimalloc, which is linked in as the allocator above; it sets one number in a static array.
    unsafe { mi_option_set_default(PURGE_DELAY, delay) }
    system(memory);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn system(memory: u64) {
    unsafe extern "C" {
        fn mallopt(option: c_int, value: c_int) -> c_int;
        fn prctl(option: c_int, ...) -> c_int;
    }
    // SAFETY: functions of the C library with arguments that it documents; each sets a number that is read when memory is got.
    unsafe {
        mallopt(ARENA_MAX, 2);
        if memory < FRUGAL_BELOW {
            mallopt(MMAP_THRESHOLD, MMAP_BYTES);
            mallopt(TRIM_THRESHOLD, TRIM_BYTES);
            prctl(THP_DISABLE, 1 as c_long, 0 as c_long, 0 as c_long, 0 as c_long);
        }
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn system(_memory: u64) {}
