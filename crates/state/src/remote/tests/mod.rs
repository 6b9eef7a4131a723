//! Checkpoints on another machine: in a directory, and in an object store whose failures the test decides.

#![allow(clippy::unwrap_used)]

mod basics;
mod crash;
mod damage;
mod faults;
mod s3;
mod support;
mod upload_thread;
mod with_store;
