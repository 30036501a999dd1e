//! `cargo xtask structure`: what the layout of the code promises, checked from its text. The code is not built for it.

mod circles;
mod files;
mod imports;
mod lengths;
mod links;
mod modules;
mod packages;
mod without_torch;

use std::process::ExitCode;

use cargo_metadata::Metadata;
use files::Files;
use modules::Crate;

fn main() -> ExitCode {
    let workspace = packages::read().map_err(|error| error.to_string());
    let found = workspace.and_then(|found| problems(&Files::read(found.workspace_root.as_std_path())?, &found));
    let problems = found.unwrap_or_else(|message| vec![message]);
    if problems.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: structure:\n{}", problems.join("\n"));
    ExitCode::FAILURE
}

/// What all checks find, a line for each problem.
fn problems(files: &Files, workspace: &Metadata) -> Result<Vec<String>, String> {
    let mut problems = Vec::new();
    for root in packages::roots(workspace) {
        problems.extend(circles::circles(&Crate::read(files, &root)?));
    }
    problems.extend(packages::wrong_arrows(workspace));
    problems.extend(lengths::wrong_lengths(files));
    problems.extend(without_torch::wrong_files(files, include_str!("../without_torch.txt"))?);
    problems.extend(links::dead_links(files));
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_reports_its_problems() {
        let long = "x!();\n".repeat(401);
        let files = [
            ("core/src/lib.rs", "mod a; mod b;"),
            ("core/src/a.rs", "use crate::b::B; pub struct A;"),
            ("core/src/b.rs", "use crate::a::A; pub struct B;"),
            ("ediffi-core/src/seed.rs", "use tch::Tensor;"),
            ("core/tests/long.rs", &long),
            ("README.md", "[a](b.md)"),
        ];
        let core = ("ediffi-core", "core", &[("evaluate", None)][..]);
        let workspace = packages::tests::workspace(&[core, ("evaluate", "tools/evaluate", &[])]);
        let found = problems(&Files::from(files), &workspace).unwrap();
        for start in [
            "circle: core/src/a.rs, core/src/b.rs",
            "core/Cargo.toml: ediffi-core may not import evaluate",
            "core/tests/long.rs: 401 lines",
            "ediffi-core/src/seed.rs: imports `tch`",
            "README.md: link to b.md",
        ] {
            assert!(found.iter().any(|line| line.starts_with(start)), "{start}: {found:#?}");
        }
    }
}
