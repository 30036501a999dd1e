//! Circles of imports within a crate.

use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;

use crate::imports::imports;
use crate::modules::Crate;

/// One line for each import of each circle, under a line that names the circle.
///
/// The parts of a module are its own file and each of its children, with everything below it. Between the parts of no
/// module may imports run in a circle. Whatever circle of files there is runs through the parts of one module, and so
/// does a circle between a file and a folder.
pub(crate) fn circles(krate: &Crate<'_>) -> Vec<String> {
    let (imports, mut lines) = (imports(krate), Vec::new());
    for module in 0..krate.modules.len() {
        let parts = |&(to, from)| part_of(krate, to, module).zip(part_of(krate, from, module));
        let between: Vec<_> = imports.keys().filter_map(|pair| Some((parts(pair)?, pair))).collect();
        let arrows = between.iter().map(|(parts, _)| *parts);
        for mut circle in tarjan_scc(&DiGraphMap::<_, ()>::from_edges(arrows)).into_iter().filter(|set| set.len() > 1) {
            circle.sort_unstable();
            let names: Vec<_> = circle.iter().map(|&part| part_name(krate, part, module)).collect();
            lines.push(format!("circle: {}", names.join(", ")));
            for ((to, from), pair) in &between {
                if to != from && circle.contains(to) && circle.contains(from) {
                    let names = imports[pair].iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                    let [to, from] = [pair.0, pair.1].map(|index| &krate.modules[index].file);
                    lines.push(format!("  {to} takes {names} from {from}"));
                }
            }
        }
    }
    lines
}

/// The part of `module` that the module `index` is in; `None` if it is elsewhere. Modules written inside the file are
/// part of the file.
fn part_of(krate: &Crate<'_>, index: usize, module: usize) -> Option<usize> {
    let line: Vec<_> = krate.line(index).collect();
    let place = line.iter().position(|&above| above == module)?;
    let part = place.checked_sub(1).map_or(module, |below| line[below]);
    Some(if krate.modules[part].file == krate.modules[module].file { module } else { part })
}

/// A file, or a folder where the part has children in files of their own.
fn part_name(krate: &Crate<'_>, part: usize, module: usize) -> String {
    let file = &krate.modules[part].file;
    let has_files = krate.modules[part].children.values().any(|&child| krate.modules[child].file != *file);
    let folder = file.strip_suffix("/mod.rs").or(file.strip_suffix(".rs")).unwrap_or(file);
    if part == module || !has_files { file.clone() } else { format!("{folder}/") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Files;

    fn check<const N: usize>(files: [(&str, &str); N]) -> Vec<String> {
        circles(&Crate::read(&Files::from(files), "lib.rs").unwrap())
    }

    #[test]
    fn two_files_that_import_each_other_are_a_circle() {
        let found = check([
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::{B, g}; pub struct A;"),
            ("b.rs", "use crate::a::A; pub struct B; pub fn g() {}"),
            ("c.rs", "use crate::{a::A, b::B};"),
        ]);
        assert_eq!(found, ["circle: a.rs, b.rs", "  a.rs takes B, g from b.rs", "  b.rs takes A from a.rs"]);
    }

    #[test]
    fn a_long_way_round_is_a_circle_and_a_fork_is_none() {
        let a = ("a.rs", "use crate::b::B; pub struct A;");
        let b = ("b.rs", "use crate::c::C; pub struct B;");
        let root = ("lib.rs", "mod a; mod b; mod c;");
        assert_eq!(check([root, a, b, ("c.rs", "pub struct C;")]), [""; 0]);
        assert_eq!(check([root, a, b, ("c.rs", "use crate::a::A; pub struct C;")])[0], "circle: a.rs, b.rs, c.rs");
        let fork = ("a.rs", "use crate::{b::B, c::C}; pub struct A;");
        assert_eq!(check([root, fork, b, ("c.rs", "pub struct C;")]), [""; 0]);
    }

    #[test]
    fn re_exports_of_the_parent_hide_no_circle_and_make_none() {
        let root = ("lib.rs", "mod a; mod b; pub use {a::A, b::B};");
        assert_eq!(check([root, ("a.rs", "use crate::B; pub struct A;"), ("b.rs", "pub struct B;")]), [""; 0]);
        let found = check([root, ("a.rs", "use crate::B; pub struct A;"), ("b.rs", "use crate::A; pub struct B;")]);
        assert_eq!(found[0], "circle: a.rs, b.rs");
    }

    #[test]
    fn a_child_that_imports_from_a_parent_that_imports_it_is_a_circle() {
        let child = ("a/x.rs", "use super::A; pub struct X;");
        let found = check([("lib.rs", "mod a;"), ("a/mod.rs", "mod x; use x::X; pub struct A(X);"), child]);
        assert_eq!(
            found,
            ["circle: a/mod.rs, a/x.rs", "  a/mod.rs takes X from a/x.rs", "  a/x.rs takes A from a/mod.rs"]
        );
        assert_eq!(check([("lib.rs", "mod a;"), ("a/mod.rs", "mod x; pub use x::X; pub struct A;"), child]), [""; 0]);
    }

    #[test]
    fn a_folder_and_a_file_that_import_each_other_are_a_circle() {
        let found = check([
            ("lib.rs", "mod tree; mod plan;"),
            ("tree.rs", "use crate::plan::Cell; pub struct Tree;"),
            ("plan/mod.rs", "mod cell; pub mod paper; pub use cell::Cell;"),
            ("plan/cell.rs", "pub struct Cell;"),
            ("plan/paper.rs", "use crate::tree::Tree;"),
        ]);
        let expected = [
            "circle: tree.rs, plan/",
            "  tree.rs takes Cell from plan/cell.rs",
            "  plan/paper.rs takes Tree from tree.rs",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn tests_and_modules_inside_a_file_make_no_circle() {
        let found = check([
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "pub struct A; mod inner { use super::A; pub fn f() {} } fn g() { inner::f() }"),
            ("b.rs", "use crate::a::A; pub struct B; #[cfg(test)] mod tests { use super::*; }"),
        ]);
        assert_eq!(found, [""; 0]);
        let inner = ("lib.rs", "mod a; pub struct Own; mod inner { use crate::a::A; fn f() -> A {} }");
        let found = check([inner, ("a.rs", "use crate::Own; pub struct A;")]);
        assert_eq!(found[0], "circle: lib.rs, a.rs", "what stands inside a file is part of it");
        let in_tests = ("a.rs", "pub struct A; #[cfg(test)] mod tests { use crate::b::B; }");
        assert_eq!(check([("lib.rs", "mod a; mod b;"), in_tests, ("b.rs", "use crate::a::A; pub struct B;")]), [""; 0]);
    }
}
