//! `cargo xtask test`: every test of the workspace.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use crate::checkout::Checkout;
use crate::summary::Summary;
use crate::{setup, system};

/// The features that have code of their own. `download-libtorch` has none, and would have all of `tch` built once more.
pub(crate) const FEATURES: &str = "draw,hub,postgres,mpi,nccl";

/// Those of them that need no MPI.
const WITHOUT_MPI: &str = "draw,hub,postgres";

/// The features that this machine can build. Without MPI the tests of training in many processes are left out, and it says so.
fn features() -> &'static str {
    let missing = system::missing_for_mpi();
    if missing.is_empty() {
        return FEATURES;
    }
    eprintln!("left out: training in many processes. Its tests need these packages of Debian: {}", missing.join(", "));
    WITHOUT_MPI
}

/// Runs `cargo test` on the whole workspace, and closes with one line that sums up all test binaries.
pub(crate) fn run(checkout: &Checkout) -> Result<(), String> {
    setup::before_building(checkout, &[])?;
    // All binaries run, whatever fails, so that the sum is over all tests.
    let mut child = checkout
        .cargo(&["test", "--workspace", "--features", features(), "--no-fail-fast"])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("error: cannot start cargo: {error}"))?;
    let output = child.stdout.take().ok_or("error: cargo test has no output")?;
    let summary = pass_on(BufReader::new(output), &mut std::io::stdout())
        .map_err(|error| format!("error: cannot pass on what the tests say: {error}"))?;
    let status = child.wait().map_err(|error| format!("error: cargo test: {error}"))?;

    println!("\n{summary}");
    match summary.failed {
        0 if status.success() => Ok(()),
        // A crate that does not compile, or a test binary that was killed, prints no result of its own.
        0 => Err(format!("error: cargo test ended early ({status}): not every test has run")),
        failed => Err(format!("error: tests failed: {failed}")),
    }
}

/// Copies the output line by line while it comes, and sums it up.
fn pass_on(mut from: impl BufRead, to: &mut impl Write) -> std::io::Result<Summary> {
    let mut summary = Summary::default();
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        to.flush()?;
        summary.line(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    Ok(summary.closed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_is_passed_on_unchanged() {
        let output = b"caf\xe9\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured\nno newline at the end";
        let mut copy = Vec::new();
        let summary = pass_on(&output[..], &mut copy).unwrap();
        assert_eq!(copy, output);
        assert_eq!(summary.to_string(), "2 passed, 0 failed, 0 skipped");
    }
}
