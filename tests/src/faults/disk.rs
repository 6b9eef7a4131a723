//! The disk that fails (`disk.c`), compiled when it is needed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// What is put before the C library, or why it cannot be had: there is no C compiler.
pub fn library() -> Result<&'static Path, String> {
    static LIBRARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    LIBRARY.get_or_init(compile).as_deref().map_err(Clone::clone)
}

fn compile() -> Result<PathBuf, String> {
    let place = std::env::current_exe().map_err(|e| e.to_string())?;
    let (made, path) = (place.with_extension(format!("{}.so", std::process::id())), place.with_file_name("millpond-disk.so"));
    let mut command = Command::new("cc");
    command.args(["-x", "c", "-", "-shared", "-fPIC", "-O1", "-o"]).arg(&made).stdin(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("there is no C compiler (cc): {e}"))?;
    child.stdin.take().expect("it was asked for").write_all(include_bytes!("disk.c")).map_err(|e| e.to_string())?;
    if !child.wait().is_ok_and(|status| status.success()) {
        return Err("the C compiler fails".into());
    }
    // Other tests may be about to do the same.
    std::fs::rename(&made, &path).map_err(|e| e.to_string())?;
    Ok(path)
}

/// The environment of a server whose data directory is on that disk.
pub fn environment<'a>(library: &'a Path, data: &'a Path, note: &'a Path) -> Vec<(&'static str, &'a str)> {
    let text = |path: &'a Path| path.to_str().expect("temporary paths are text");
    vec![("LD_PRELOAD", text(library)), ("MILLPOND_DISK_DIR", text(data)), ("MILLPOND_DISK_NOTE", text(note))]
}
