//! The allocator of server and benchmark: mimalloc, which keeps freed memory for some seconds.
//!
//! An epoch makes large arrays that live for one step. Given back to the kernel and got again, their pages are zeroed
//! each time, which was a quarter to two thirds of the CPU time of queries with wide state (`docs/performance.md`).
#![allow(unsafe_code)] // one call into the allocator

use std::ffi::{c_int, c_long};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` in `mimalloc.h`.
const PURGE_DELAY: c_int = 15;
/// Some epochs and checkpoints, and soon enough for a server that has become idle.
const PURGE_DELAY_MS: c_long = 10_000;

unsafe extern "C" {
    fn mi_option_set_default(option: c_int, value: c_long);
}

/// To be called first in `main`. `MIMALLOC_PURGE_DELAY` in the environment takes precedence.
pub fn configure() {
    // SAFETY: the function of mimalloc, which is linked in as the allocator above; it sets one number in a static array,
    // and is called before there are other threads.
    unsafe { mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS) }
}
