//! The files that can be understood and tested without libtorch.

use super::sources::Sources;
use super::tokens::tokens;

/// They compute with plain numbers. A path that ends with `/` is a folder.
const FILES: [&str; 32] = [
    "ediffi-core/src/experts.rs",
    "ediffi-core/src/files.rs",
    "ediffi-core/src/interval/",
    "ediffi-core/src/multiple.rs",
    "ediffi-core/src/normal.rs",
    "ediffi-core/src/plan.rs",
    "ediffi-core/src/schedule.rs",
    "ediffi-core/src/seed.rs",
    "ediffi-core/src/sigma_interval.rs",
    "ediffi-core/src/timesteps/",
    "ediffi-core/src/window.rs",
    "ediffi-cascade/src/plan.rs",
    "ediffi-cascade/src/settings.rs",
    "ediffi-cascade/src/sizes.rs",
    "ediffi-cascade/src/tiling.rs",
    "ediffi-paint/src/bind.rs",
    "ediffi-paint/src/canvas.rs",
    "ediffi-paint/src/colours.rs",
    "ediffi-paint/src/downscale.rs",
    "ediffi-paint/src/layers.rs",
    "ediffi-paint/src/limits.rs",
    "ediffi-paint/src/mask.rs",
    "ediffi-paint/src/palette.rs",
    "ediffi-paint/src/preview.rs",
    "ediffi-paint/src/region.rs",
    "ediffi-paint/src/shape.rs",
    "ediffi-paint/src/span.rs",
    "ediffi-paint/src/strength.rs",
    "ediffi-train/src/lineage.rs",
    "ediffi-train/src/noise_cell.rs",
    "ediffi-train/src/plan/",
    "ediffi-train/src/tree.rs",
];

/// One line for each of these files that names `tch`, tests aside, or is not there.
pub(crate) fn wrong_files(sources: &Sources) -> Vec<String> {
    FILES.iter().filter_map(|path| problem(sources, path)).collect()
}

fn problem(sources: &Sources, path: &str) -> Option<String> {
    if !sources.exists(path.trim_end_matches('/')) {
        return Some(format!("{path}: not there: take it off the list of files without libtorch"));
    }
    let files = sources.under(path).filter(|(file, _)| file.ends_with(".rs"));
    let mut wrong = files.filter(|(_, text)| tokens(text).contains(&"tch")).map(|(file, _)| file);
    wrong.next().map(|file| format!("{file}: imports `tch`; it has to stay without"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_libtorch_may_use_it_in_tests_alone() {
        let check = |text: &str| problem(&Sources::from([("core/a/b.rs", text)]), "core/a/");
        assert_eq!(check("//! Not `tch`.\n#[cfg(test)] mod tests { use tch::Tensor; }"), None);
        assert!(check("fn f(x: &tch::Tensor) {}").unwrap().starts_with("core/a/b.rs: imports"));
        assert!(problem(&Sources::default(), "core/c.rs").unwrap().contains("not there"));
    }
}
