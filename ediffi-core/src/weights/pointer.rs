//! Pointers of git-lfs.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// How a pointer begins.
const POINTER: &[u8] = b"version https://git-lfs";

/// Whether a file is a pointer: what a clone without git-lfs has in place of the file.
pub(super) fn is_pointer(path: &Path) -> bool {
    let mut start = [0; POINTER.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == POINTER
}
