//! `cargo xtask setup`: libtorch for this checkout, in `.libtorch`.

use ediffi_libtorch::{Extent, Need, install};

use crate::checkout::Checkout;

/// `cargo xtask setup`.
pub(crate) fn run(checkout: &Checkout, cuda: bool) -> Result<(), String> {
    let ready = prepare(checkout, if cuda { Extent::Cuda } else { Extent::Cpu }, &[Need::Compiler])?;
    eprintln!("{ready}");
    Ok(())
}

/// What every command that builds calls first: checks what it needs, and sets up if that has not been done.
pub(crate) fn before_building(checkout: &Checkout, more: &[Need]) -> Result<(), String> {
    prepare(checkout, Extent::Cpu, &[&[Need::Compiler], more].concat()).map(drop)
}

/// Makes libtorch ready, and says which it is.
fn prepare(checkout: &Checkout, wanted: Extent, also: &[Need]) -> Result<String, String> {
    let folder = checkout.root().join(".libtorch");
    let ready = install(checkout.libtorch(), &folder, wanted, also, &|line| eprintln!("{line}"));
    // One `missing: ` line for each thing that is not there needs no other word before it.
    ready.map(|ready| ready.what).map_err(|error| match error {
        ediffi_libtorch::Error::Missing(lines) => lines.join("\n"),
        error => format!("error: {error}"),
    })
}
