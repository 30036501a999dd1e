//! The targets find libtorch when they are started without Cargo.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    if let Some(argument) = ediffi_libtorch::of_programs() {
        println!("cargo::rustc-link-arg={argument}");
    }
}
