//! The files that can be understood and tested without libtorch.

use crate::files::Files;
use crate::modules::Crate;

/// One line for each file of the list that names `tch`, tests aside, or is not there. A path that ends with `/` is a folder.
pub(crate) fn wrong_files(files: &Files, list: &str) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    for path in list.lines() {
        if !files.exists(path.trim_end_matches('/')) {
            lines.push(format!("{path}: not there: take it off the list of files without libtorch"));
        }
        for (file, _) in files.ending(".rs").filter(|(file, _)| file.starts_with(path)) {
            if Crate::read(files, file)?.modules.iter().any(|module| module.file == file && module.names("tch")) {
                lines.push(format!("{file}: imports `tch`; it has to stay without"));
            }
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_libtorch_may_use_it_in_tests_alone() {
        let check = |text: &str| wrong_files(&Files::from([("core/a/b.rs", text)]), "core/a/\n").unwrap();
        assert_eq!(check("//! Not `tch`.\n#[cfg(test)] mod tests { use tch::Tensor; }"), [""; 0]);
        for text in ["fn f(x: &tch::Tensor) {}", "use tch::Kind as K;", "mod a { fn f() { g!(tch::no_grad) } }"] {
            assert!(check(text)[0].starts_with("core/a/b.rs: imports"), "{text}");
        }
        assert!(wrong_files(&Files::from([]), "core/c.rs").unwrap()[0].contains("not there"));
    }
}
