//! Which file of a crate takes which names from which other file.

use std::collections::{BTreeMap, BTreeSet};

use super::modules::{Crate, Module};

/// For each pair of modules (by number), the names that the first takes from the second.
pub(crate) type Imports = BTreeMap<(usize, usize), BTreeSet<String>>;

/// How many re-exports are followed from one name, so that a re-export of itself ends.
const LONGEST_CHAIN: usize = 12;

/// What a path leads to.
#[derive(Debug, Clone, PartialEq)]
enum Target {
    Module(usize),
    /// A name, and the module that defines it.
    Name(usize, String),
}

/// The imports between the modules of a crate, each from the module that defines the name, however it is re-exported.
///
/// A re-export (`pub use`) of what a module's own children define is part of their declaration, not an import, unless
/// the module's code uses the name, too. The import of a module by name counts where its names are used.
pub(crate) fn imports(krate: &Crate) -> Imports {
    let mut found = Imports::new();
    for (index, module) in krate.modules.iter().enumerate() {
        let mut take = |target: &Target| {
            if let Target::Name(from, name) = target
                && krate.modules[*from].file != module.file
            {
                found.entry((index, *from)).or_default().insert(name.clone());
            }
        };
        for used in &module.uses {
            let mentioned = module.mentioned.contains(&used.name);
            if used.name == "*" {
                for name in &module.mentioned {
                    let path: Vec<_> = used.path.iter().map(|part| if part == "*" { name } else { part }).collect();
                    for target in krate.resolve(index, &path, true, 0) {
                        take(&target);
                    }
                }
                continue;
            }
            for target in krate.resolve(index, &used.path.iter().collect::<Vec<_>>(), false, 0) {
                if !used.public || mentioned || !krate.is_below(&target, index) {
                    take(&target);
                }
            }
        }
        for path in &module.paths {
            for target in krate.resolve(index, &path.iter().collect::<Vec<_>>(), false, 0) {
                take(&target);
            }
        }
    }
    found
}

impl Crate {
    /// What a path means in a module. Paths out of the crate lead nowhere; what a module of the crate does not define
    /// in a way that is seen (by a macro) is taken to be its own, unless the path is a guess (`only_seen`).
    fn resolve(&self, module: usize, path: &[&String], only_seen: bool, depth: usize) -> Vec<Target> {
        let Some((first, rest)) = path.split_first() else { return Vec::new() };
        let mut targets = match first.as_str() {
            "crate" => vec![Target::Module(0)],
            "self" => vec![Target::Module(module)],
            "super" => self.modules[module].parent.map(Target::Module).into_iter().collect(),
            name => self.look_up(module, name, depth),
        };
        for (position, name) in rest.iter().enumerate() {
            let Some(at) = targets.iter().find_map(|target| match target {
                Target::Module(at) => Some(*at),
                Target::Name(..) => None,
            }) else {
                // A variant or a function of a type, which stands where the type does.
                return targets;
            };
            if name.as_str() == "super" {
                targets = self.modules[at].parent.map(Target::Module).into_iter().collect();
                continue;
            }
            targets = self.look_up(at, name, depth);
            if targets.is_empty()
                && !only_seen
                && position + 1 == rest.len()
                && !self.modules[at].takes_from_outside(name)
            {
                targets.push(Target::Name(at, (*name).clone()));
            }
        }
        targets
    }

    /// What a name means in a module: a type or a function and a module may share it.
    fn look_up(&self, module: usize, name: &str, depth: usize) -> Vec<Target> {
        let here = &self.modules[module];
        let mut targets = Vec::new();
        targets.extend(here.children.get(name).map(|&child| Target::Module(child)));
        if here.defined.contains(name) {
            targets.push(Target::Name(module, name.to_owned()));
        }
        if depth < LONGEST_CHAIN {
            for used in &here.uses {
                let path: Vec<_> = used.path.iter().collect();
                // A name that means itself, as in `use tch::Tensor`, is not ours.
                if used.name == name && path.first().is_none_or(|first| *first != name || path.len() > 1) {
                    targets.extend(self.resolve_use(module, &path, depth));
                } else if used.name == "*" && targets.is_empty() {
                    let folder = &path[..path.len().saturating_sub(1)];
                    for target in self.resolve_use(module, folder, depth) {
                        if let Target::Module(from) = target {
                            targets.extend(self.look_up(from, name, depth + 1));
                        }
                    }
                }
            }
        }
        targets
    }

    fn resolve_use(&self, module: usize, path: &[&String], depth: usize) -> Vec<Target> {
        self.resolve(module, path, true, depth + 1)
    }

    fn is_below(&self, target: &Target, ancestor: usize) -> bool {
        let (Target::Module(start) | Target::Name(start, _)) = target;
        let mut at = self.modules[*start].parent;
        while let Some(module) = at {
            if module == ancestor {
                return true;
            }
            at = self.modules[module].parent;
        }
        false
    }
}

impl Module {
    fn takes_from_outside(&self, name: &str) -> bool {
        self.uses.iter().any(|used| used.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structure::sources::Sources;

    /// The imports as lines `file <- file: names`.
    fn lines<const N: usize>(files: [(&str, &str); N]) -> Vec<String> {
        let krate = Crate::read(&Sources::from(files), "lib.rs");
        let show = |((to, from), names): ((usize, usize), BTreeSet<String>)| {
            let names = names.into_iter().collect::<Vec<_>>().join(", ");
            format!("{} <- {}: {names}", krate.modules[to].file, krate.modules[from].file)
        };
        imports(&krate).into_iter().map(show).collect()
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
        let a = ("a.rs", "pub fn f() {} pub struct S;");
        assert_eq!(lines([("lib.rs", "mod a; mod b;"), a, ("b.rs", "use crate::a;")]), [""; 0]);
        assert_eq!(
            lines([("lib.rs", "mod a; mod b;"), a, ("b.rs", "use crate::a; const F: u8 = a::f();")]),
            ["b.rs <- a.rs: f"]
        );
        let with_self = ("b.rs", "use crate::a::{self, S}; fn g() { a::f() }");
        assert_eq!(lines([("lib.rs", "mod a; mod b;"), a, with_self]), ["b.rs <- a.rs: S, f"]);
    }

    #[test]
    fn a_star_brings_what_is_mentioned() {
        let found = lines([
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "pub fn f() {} pub struct S;"),
            ("b.rs", "use super::a::*; fn g() -> S { h() }"),
        ]);
        assert_eq!(found, ["b.rs <- a.rs: S"]);
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
        let found = lines([("lib.rs", "mod a; mod b;"), ("a.rs", "pub struct S;"), ("b.rs", "pub use crate::a::S;")]);
        assert_eq!(found, ["b.rs <- a.rs: S"]);
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
    fn other_crates_and_tests_do_not_count() {
        let found = lines([
            ("lib.rs", "mod a; mod b; pub use tch::Tensor;"),
            (
                "a.rs",
                "use tch::Tensor; use std::fmt; fn f() { fmt::x(); crate::Tensor::y() } #[cfg(test)] mod t { use crate::b::B; }",
            ),
            ("b.rs", "pub struct B; // use crate::a::f;"),
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
        assert_eq!(
            lines([
                ("lib.rs", "mod a; mod b; use a::x;"),
                ("a.rs", "pub use crate::b::x;"),
                ("b.rs", "pub use crate::a::x;")
            ]),
            [""; 0]
        );
    }
}
