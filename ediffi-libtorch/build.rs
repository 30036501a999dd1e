//! Ends a build that cannot succeed with what to do, before `torch-sys` ends it with a panic.

#[allow(dead_code, unreachable_pub, reason = "the library gives out more")]
#[path = "src/error.rs"]
mod error;
#[allow(unreachable_pub, reason = "the library gives it out")]
#[path = "src/pair.rs"]
mod pair;
#[path = "src/refusal.rs"]
mod refusal;
#[allow(dead_code, unreachable_pub, reason = "the library gives out more")]
#[path = "src/version.rs"]
mod version;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src");
    if std::env::var_os("CARGO_FEATURE_BUILD_CHECK").is_none() {
        return;
    }
    let seen = refusal::look(|name| {
        if !name.starts_with("CARGO_") {
            println!("cargo::rerun-if-env-changed={name}");
        }
        std::env::var_os(name)
    });
    for line in seen.refusal().into_iter().flatten() {
        println!("cargo::error={line}");
    }
}
