//! Which file of a crate takes which names from which other file.

use std::collections::{BTreeMap, BTreeSet};

use crate::modules::Crate;

/// How many re-exports are followed from one name, so that a re-export of itself ends.
const LONGEST_CHAIN: usize = 12;

/// What a path leads to: a module, or a name and the module that defines it.
type Target = (usize, Option<String>);

/// For each pair of modules of a crate (by number), the names that the first takes from the second, which defines them,
/// however they are re-exported.
///
/// A re-export (`pub use`) of what a module's own children define is part of their declaration, not an import, unless
/// the module's code uses the name, too. The import of a module by name counts where its names are used.
pub(crate) fn imports(krate: &Crate<'_>) -> BTreeMap<(usize, usize), BTreeSet<String>> {
    let mut found = BTreeMap::<_, BTreeSet<_>>::new();
    for (index, module) in krate.modules.iter().enumerate() {
        let used = module.uses.iter().filter(|used| used.name != "*").flat_map(|used| {
            let targets = krate.resolve(index, &used.path, 0).into_iter();
            targets.filter(|&(from, _)| !used.public || !krate.line(from).skip(1).any(|above| above == index))
        });
        let named = module.paths.iter().flat_map(|path| krate.resolve(index, path, 0));
        let taken = used.chain(named).filter_map(|(from, name)| Some((from, name?)));
        for (from, name) in taken.filter(|&(from, _)| krate.modules[from].file != module.file) {
            found.entry((index, from)).or_default().insert(name);
        }
    }
    found
}

impl Crate<'_> {
    /// A module, its parent, and so on up to the root.
    pub(crate) fn line(&self, module: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(module), |&module| self.modules[module].parent)
    }

    /// What a path means in a module. Paths out of the crate lead nowhere. What a module of the crate does not define
    /// in a way that is seen (by a macro) is taken to be its own, unless the path is that of a re-export (`depth` > 0).
    fn resolve(&self, module: usize, path: &[String], depth: usize) -> Vec<Target> {
        let mut targets = vec![(module, None)];
        for (position, name) in path.iter().enumerate() {
            // What follows a type is a variant or a function of it, which stands where the type does.
            let Some(&(at, _)) = targets.iter().find(|(_, name)| name.is_none()) else { break };
            targets = match name.as_str() {
                "crate" => vec![(0, None)],
                "self" => vec![(at, None)],
                "super" => self.line(at).nth(1).map(|parent| (parent, None)).into_iter().collect(),
                name => self.look_up(at, name, depth),
            };
            let is_last = position > 0 && position + 1 == path.len();
            if is_last && depth == 0 && targets.is_empty() && !self.modules[at].uses.iter().any(|it| it.name == *name) {
                targets.push((at, Some(name.clone())));
            }
        }
        targets
    }

    /// What a name means in a module: a type or a function and a module may share it.
    fn look_up(&self, module: usize, name: &str, depth: usize) -> Vec<Target> {
        let here = &self.modules[module];
        let mut targets: Vec<Target> = here.children.get(name).map(|&child| (child, None)).into_iter().collect();
        targets.extend(here.defined.get(name).map(|name| (module, Some(name.clone()))));
        for used in here.uses.iter().filter(|_| depth < LONGEST_CHAIN) {
            // A name that means itself, as in `use serde`, is not ours.
            if used.name == name && used.path != [name] {
                targets.extend(self.resolve(module, &used.path, depth + 1));
            } else if used.name == "*" && targets.is_empty() {
                for (from, _) in self.resolve(module, &used.path, depth + 1).iter().filter(|(_, name)| name.is_none()) {
                    targets.extend(self.look_up(*from, name, depth + 1));
                }
            }
        }
        targets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Files;

    /// The imports as lines `file <- file: names`.
    fn lines<const N: usize>(files: [(&str, &str); N]) -> Vec<String> {
        let files = Files::from(files);
        let krate = Crate::read(&files, "lib.rs").unwrap();
        let show = |((to, from), names): ((usize, usize), BTreeSet<String>)| {
            let names = names.into_iter().collect::<Vec<_>>().join(", ");
            format!("{} <- {}: {names}", krate.modules[to].file, krate.modules[from].file)
        };
        imports(&krate).into_iter().map(show).collect()
    }

    /// The imports of `b.rs` beside `a.rs`, which defines `f` and `S`.
    fn of_b(text: &str) -> Vec<String> {
        lines([
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "pub fn f() {} pub struct S; pub const C: u8 = 0;"),
            ("b.rs", text),
        ])
    }

    #[test]
    fn re_exports_lead_to_the_file_that_defines_the_name() {
        let found = lines([
            ("lib.rs", "mod a; mod b; pub use a::Thing;"),
            ("a/mod.rs", "mod inner; pub use inner::{Thing as Renamed, Thing};"),
            ("a/inner.rs", "pub struct Thing;"),
            ("b.rs", "use crate::{Thing, a::Renamed}; fn f() -> super::a::Thing { Thing }"),
        ]);
        assert_eq!(found, ["b.rs <- a/inner.rs: Thing"]);
    }

    #[test]
    fn re_exports_of_everything_lead_there_too() {
        let found = lines([
            ("lib.rs", "mod a; mod b;"),
            ("a/mod.rs", "mod inner; mod other; pub use {inner::*, other::*};"),
            ("a/inner.rs", "pub struct One;"),
            ("a/other.rs", "pub struct Two; use super::super::b::b;"),
            ("b.rs", "use crate::a::Two; pub fn b() {}"),
        ]);
        assert_eq!(found, ["a/other.rs <- b.rs: b", "b.rs <- a/other.rs: Two"]);
    }

    #[test]
    fn a_module_imported_by_name_counts_where_it_is_used() {
        assert_eq!(of_b("use crate::a;"), [""; 0]);
        assert_eq!(of_b("use crate::a; const F: u8 = a::f();"), ["b.rs <- a.rs: f"]);
        assert_eq!(of_b("use crate::a::{self, S}; fn g() { a::f() }"), ["b.rs <- a.rs: S, f"]);
        assert_eq!(of_b("use crate::a; fn g() { assert!(h(a::f())) }"), ["b.rs <- a.rs: f"]);
    }

    #[test]
    fn a_star_brings_what_is_named() {
        assert_eq!(of_b("use super::a::*; fn g() -> S { h() }"), ["b.rs <- a.rs: S"]);
        assert_eq!(of_b("use super::a::*; fn g() { match 0 { C => x.f(), _ => {} } }"), ["b.rs <- a.rs: C"]);
        assert_eq!(of_b("use super::a::*; fn g() { println!(\"{}\", f()) }"), ["b.rs <- a.rs: f"]);
    }

    #[test]
    fn the_parent_uses_a_child_only_where_its_code_does() {
        let child = ("a.rs", "use super::Own; pub struct Thing;");
        assert_eq!(lines([("lib.rs", "mod a; pub use a::Thing; pub struct Own;"), child]), ["a.rs <- lib.rs: Own"]);
        assert_eq!(
            lines([("lib.rs", "mod a; pub use a::Thing; pub struct Own(Thing);"), child]),
            ["lib.rs <- a.rs: Thing", "a.rs <- lib.rs: Own"]
        );
    }

    #[test]
    fn a_re_export_of_a_sibling_is_an_import() {
        assert_eq!(of_b("pub use crate::a::S;"), ["b.rs <- a.rs: S"]);
    }

    #[test]
    fn a_module_and_a_function_may_share_a_name() {
        let found = lines([
            ("lib.rs", "mod guarded; mod b; pub use guarded::guarded;"),
            ("guarded.rs", "pub fn guarded() {}"),
            ("b.rs", "use crate::guarded; fn f() { guarded() }"),
        ]);
        assert_eq!(found, ["b.rs <- guarded.rs: guarded"]);
    }

    #[test]
    fn other_crates_do_not_count() {
        let found = lines([
            ("lib.rs", "mod a; pub use tch::Tensor;"),
            ("a.rs", "use tch::Tensor; use std::fmt; fn f() { fmt::x(); crate::Tensor::y() }"),
        ]);
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn what_a_macro_defines_is_its_modules() {
        let found = lines([("lib.rs", "mod a; mod b;"), ("a.rs", "make!(S);"), ("b.rs", "use crate::a::S;")]);
        assert_eq!(found, ["b.rs <- a.rs: S"]);
    }

    #[test]
    fn re_exports_in_a_ring_end() {
        let root = ("lib.rs", "mod a; mod b; use a::x;");
        assert_eq!(lines([root, ("a.rs", "pub use crate::b::x;"), ("b.rs", "pub use crate::a::x;")]), [""; 0]);
    }
}
