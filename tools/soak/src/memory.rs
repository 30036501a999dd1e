//! Memory of this process.

use crate::result::Result;

/// Bytes of memory that this process has in use (Linux).
///
/// # Errors
/// A system without `/proc`.
pub fn resident() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS in /proc/self/status")?;
    let kilobytes = line.split_whitespace().next().ok_or("VmRSS is empty")?;
    Ok(1024 * kilobytes.parse::<u64>()?)
}
