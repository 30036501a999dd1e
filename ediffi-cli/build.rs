//! The command finds libtorch when it is started without Cargo.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    let draws = std::env::var_os("CARGO_FEATURE_DRAW").is_some();
    if let Some(argument) = ediffi_libtorch::of_programs().filter(|_| draws) {
        println!("cargo::rustc-link-arg={argument}");
    }
}
