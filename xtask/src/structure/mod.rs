//! `cargo xtask structure`: what the layout of the code promises, checked from its text. Nothing is built for it.

mod circles;
mod imports;
mod lengths;
mod links;
mod manifests;
mod modules;
mod sources;
mod tokens;
mod without_torch;

use crate::checkout::Checkout;
use modules::Crate;
use sources::Sources;

/// Runs all checks; the error has a line for each problem.
pub(crate) fn run(checkout: &Checkout) -> Result<(), String> {
    let problems = problems(&Sources::read(checkout.root())?);
    if problems.is_empty() { Ok(()) } else { Err(format!("error: structure:\n{}", problems.join("\n"))) }
}

fn problems(sources: &Sources) -> Vec<String> {
    let packages = manifests::packages(sources);
    let roots = packages.iter().flat_map(|package| package.roots(sources));
    let circles = roots.flat_map(|root| circles::circles(&Crate::read(sources, root)));
    let mut problems: Vec<_> = circles.collect();
    problems.extend(manifests::wrong_arrows(&packages));
    problems.extend(lengths::wrong_lengths(sources));
    problems.extend(without_torch::wrong_files(sources));
    problems.extend(links::dead_links(sources));
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_reports_its_problems() {
        let long = "x;\n".repeat(401);
        let found = problems(&Sources::from([
            ("core/Cargo.toml", "[package]\nname = \"ediffi-core\"\n[dependencies]\nediffi-tool.workspace = true\n"),
            ("tools/a/Cargo.toml", "[package]\nname = \"ediffi-tool\"\n"),
            ("core/src/lib.rs", "mod a; mod b;"),
            ("core/src/a.rs", "use crate::b::B; pub struct A;"),
            ("core/src/b.rs", "use crate::a::A; pub struct B;"),
            ("ediffi-core/src/seed.rs", "use tch::Tensor;"),
            ("core/tests/long.rs", &long),
            ("README.md", "[a](b.md)"),
        ]));
        for start in [
            "circle: core/src/a.rs, core/src/b.rs",
            "core/Cargo.toml: ediffi-core may not import ediffi-tool",
            "core/tests/long.rs: 401 lines",
            "ediffi-core/src/seed.rs: imports `tch`",
            "README.md: link to b.md",
        ] {
            assert!(found.iter().any(|line| line.starts_with(start)), "{start}: {found:#?}");
        }
    }
}
