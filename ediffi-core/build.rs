//! Lets `cargo run` and `cargo test` find libtorch at run time, here and in every program that depends on this crate.
//!
//! Cargo puts a build script's link search path on the loader's path only when it lies inside the target folder, so
//! this script makes a link to libtorch there. Without it a user would have to export `LD_LIBRARY_PATH`.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    // For programs that are started without Cargo.
    if let Some(argument) = ediffi_libtorch::of_programs() {
        println!("cargo:rustc-link-arg={argument}");
    }
    println!("cargo:rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    let (Some(libtorch), Some(out)) = (std::env::var_os("DEP_TCH_LIBTORCH_LIB"), std::env::var_os("OUT_DIR")) else {
        return;
    };
    let link = PathBuf::from(out).join("libtorch");
    // The link may stand from an earlier build, with another libtorch behind it.
    let _ = std::fs::remove_file(&link);
    #[cfg(unix)]
    match std::os::unix::fs::symlink(&libtorch, &link) {
        Ok(()) => println!("cargo:rustc-link-search=native={}", link.display()),
        Err(error) => {
            println!("cargo:warning=programs will not find libtorch: cannot link {}: {error}", link.display())
        }
    }
    #[cfg(not(unix))]
    let _ = libtorch;
}
