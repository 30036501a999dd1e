//! Circles of imports within a crate.

use std::collections::{BTreeMap, BTreeSet};

use super::imports::{Imports, imports};
use super::modules::Crate;

/// One line for each import of each circle, under a line that names the circle.
///
/// The parts of a module are its own file and each of its children, with everything below it. Between the parts of no
/// module may imports run in a circle. Whatever circle of files there is runs through the parts of one module, and so
/// does a circle between a file and a folder.
pub(crate) fn circles(krate: &Crate) -> Vec<String> {
    let imports = imports(krate);
    let mut lines = Vec::new();
    for module in 0..krate.modules.len() {
        let between = between_parts(krate, &imports, module);
        let arrows: BTreeSet<_> = between.keys().copied().collect();
        for circle in strongly_connected(&arrows) {
            let names: Vec<_> = circle.iter().map(|&part| part_name(krate, part, module)).collect();
            lines.push(format!("circle: {}", names.join(", ")));
            for ((to, from), taken) in &between {
                if circle.contains(to) && circle.contains(from) {
                    lines.extend(taken.iter().cloned());
                }
            }
        }
    }
    lines
}

/// For each pair of parts of `module`, what the first takes from the second, as lines. A part has the number of its
/// topmost module.
fn between_parts(krate: &Crate, imports: &Imports, module: usize) -> BTreeMap<(usize, usize), Vec<String>> {
    let mut between = BTreeMap::<_, Vec<String>>::new();
    for (&(to, from), names) in imports {
        let parts = part_of(krate, to, module).zip(part_of(krate, from, module));
        if let Some(parts) = parts.filter(|(to, from)| to != from) {
            let names = names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let [to, from] = [to, from].map(|index| &krate.modules[index].file);
            between.entry(parts).or_default().push(format!("  {to} takes {names} from {from}"));
        }
    }
    between
}

/// The part of `module` that the module `index` is in; `None` if it is elsewhere. Modules written inside the file are
/// part of the file.
fn part_of(krate: &Crate, mut index: usize, module: usize) -> Option<usize> {
    let own_file = &krate.modules[module].file;
    while index != module {
        let parent = krate.modules[index].parent?;
        if parent == module {
            return Some(if krate.modules[index].file == *own_file { module } else { index });
        }
        index = parent;
    }
    Some(module)
}

/// A file, or a folder where the part has children in files of their own.
fn part_name(krate: &Crate, part: usize, module: usize) -> String {
    let file = &krate.modules[part].file;
    let has_files = krate.modules[part].children.values().any(|&child| krate.modules[child].file != *file);
    if part == module || !has_files {
        return file.clone();
    }
    format!("{}/", file.strip_suffix("/mod.rs").or(file.strip_suffix(".rs")).unwrap_or(file))
}

/// The sets of nodes that reach each other along the arrows, of two nodes or more.
fn strongly_connected(arrows: &BTreeSet<(usize, usize)>) -> Vec<BTreeSet<usize>> {
    let reached = |start: usize| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![start]);
        while let Some(node) = open.pop() {
            let next = arrows.range((node, 0)..=(node, usize::MAX)).map(|&(_, to)| to);
            open.extend(next.filter(|&to| seen.insert(to)));
        }
        seen
    };
    let reach: BTreeMap<_, _> = arrows.iter().map(|&(node, _)| (node, reached(node))).collect();
    let mut sets = Vec::new();
    for (&node, from_node) in &reach {
        if from_node.contains(&node) && !sets.iter().any(|set: &BTreeSet<usize>| set.contains(&node)) {
            sets.push(
                from_node
                    .iter()
                    .copied()
                    .filter(|other| reach.get(other).is_some_and(|to| to.contains(&node)))
                    .collect(),
            );
        }
    }
    sets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structure::sources::Sources;

    fn check<const N: usize>(files: [(&str, &str); N]) -> Vec<String> {
        circles(&Crate::read(&Sources::from(files), "lib.rs"))
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
