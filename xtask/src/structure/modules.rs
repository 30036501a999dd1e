//! The modules of a crate: what each defines, imports and mentions.

use std::collections::{BTreeMap, BTreeSet};

use super::sources::{Sources, folder_of, join};
use super::tokens::{after_group, after_item, is_name, tokens};

/// A module; its number is its place in [`Crate::modules`].
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// The file that it stands in.
    pub(crate) file: String,
    pub(crate) parent: Option<usize>,
    pub(crate) children: BTreeMap<String, usize>,
    /// The names that are defined here, those of modules aside.
    pub(crate) defined: BTreeSet<String>,
    pub(crate) uses: Vec<Use>,
    /// The paths in its code, other than in `use`: at least two names each.
    pub(crate) paths: Vec<Vec<String>>,
    /// Every name in its code, other than in `use`.
    pub(crate) mentioned: BTreeSet<String>,
}

/// One name that a `use` brings in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Use {
    /// What is brought in. The last part is `*` for all names.
    pub(crate) path: Vec<String>,
    /// What it is called here.
    pub(crate) name: String,
    /// Whether others can import it from here.
    pub(crate) public: bool,
}

/// The modules of one library or program.
#[derive(Debug)]
pub(crate) struct Crate {
    /// The first is the root.
    pub(crate) modules: Vec<Module>,
}

impl Crate {
    /// Reads the crate whose root is the file `root`.
    pub(crate) fn read(sources: &Sources, root: &str) -> Self {
        let mut krate = Self { modules: Vec::new() };
        krate.add_file(sources, root, None, folder_of(root));
        krate
    }

    /// Adds the module in `file`. The files of its children lie in `folder`.
    fn add_file(&mut self, sources: &Sources, file: &str, parent: Option<usize>, folder: &str) -> usize {
        let index = self.modules.len();
        self.modules.push(Module { file: file.to_owned(), parent, ..Module::default() });
        self.add_items(sources, index, folder, &tokens(sources.text(file).unwrap_or_default()));
        index
    }

    /// Adds what `code` declares to the module `index`.
    fn add_items(&mut self, sources: &Sources, index: usize, folder: &str, code: &[&str]) {
        let (mut at, mut path_attribute) = (0, None);
        while at < code.len() {
            if code[at] == "#" {
                let open = at + 1 + usize::from(code.get(at + 1) == Some(&"!"));
                let end = after_group(code, open);
                if let ["path", "=", path] = code[(open + 1).min(end)..end.saturating_sub(1)] {
                    path_attribute = Some(path.trim_matches('"'));
                }
                at = end;
                continue;
            }
            let public = code[at] == "pub";
            let mut start = at + usize::from(public);
            if public && code.get(start) == Some(&"(") {
                start = after_group(code, start);
            }
            let end = after_item(code, start).max(at + 1);
            let item = &code[start.min(end)..end];
            match item {
                ["mod", name, ";"] => {
                    let child = self.add_child_file(sources, index, folder, name, path_attribute);
                    self.modules[index].children.insert((*name).to_owned(), child);
                }
                ["mod", name, "{", inside @ .., "}"] => {
                    let (child, file) = (self.modules.len(), self.modules[index].file.clone());
                    self.modules.push(Module { file, parent: Some(index), ..Module::default() });
                    self.modules[index].children.insert((*name).to_owned(), child);
                    self.add_items(sources, child, &format!("{folder}/{name}"), inside);
                }
                ["use", tree @ .., ";"] => add_uses(tree, &[], public, &mut self.modules[index].uses),
                _ => self.modules[index].add_code(item),
            }
            path_attribute = None;
            at = end;
        }
    }

    fn add_child_file(
        &mut self,
        sources: &Sources,
        parent: usize,
        folder: &str,
        name: &str,
        path_attribute: Option<&str>,
    ) -> usize {
        if let Some(path) = path_attribute {
            let file = join(folder_of(&self.modules[parent].file), path).unwrap_or_default();
            return self.add_file(sources, &file, Some(parent), folder_of(&file));
        }
        let children = join(folder, name).unwrap_or_default();
        let own_folder = format!("{children}/mod.rs");
        let file = if sources.text(&own_folder).is_some() { own_folder } else { format!("{children}.rs") };
        self.add_file(sources, &file, Some(parent), &children)
    }
}

impl Module {
    /// Adds an item that is neither a module nor a `use`.
    fn add_code(&mut self, item: &[&str]) {
        const QUALIFIERS: [&str; 5] = ["unsafe", "async", "extern", "default", "const"];
        const KINDS: [&str; 9] = ["fn", "struct", "enum", "union", "trait", "type", "const", "static", "macro_rules"];
        let names = item.iter().copied().filter(|&token| is_name(token));
        let mut words = names.skip_while(|word| QUALIFIERS.contains(word) && *word != "const").peekable();
        let mut kind = words.next();
        if kind == Some("const") && words.peek().is_some_and(|word| matches!(*word, "fn" | "unsafe" | "extern")) {
            kind = words.find(|&word| word == "fn");
        }
        if kind.is_some_and(|kind| KINDS.contains(&kind))
            && let Some(name) = words.find(|&word| word != "mut")
        {
            self.defined.insert(name.to_owned());
        }
        let mut at = 0;
        while let Some(&token) = item.get(at) {
            if token == "use" {
                // A `use` inside a function holds for the whole module here: names are seldom used for two things.
                let end = after_item(item, at);
                add_uses(&item[at + 1..end.saturating_sub(1).max(at + 1)], &[], false, &mut self.uses);
                at = end.max(at + 1);
                continue;
            }
            if !is_name(token) {
                at += 1;
                continue;
            }
            let mut path = vec![token.to_owned()];
            let after_dot = at > 0 && item[at - 1] == "." && (at < 2 || item[at - 2] != ".");
            let mut end = at + 1;
            while item.get(end) == Some(&"::")
                && let Some(next) = item.get(end + 1).filter(|next| is_name(next))
            {
                path.push((*next).to_owned());
                end += 2;
            }
            if !after_dot {
                self.mentioned.insert(token.to_owned());
                if path.len() > 1 {
                    self.paths.push(path);
                }
            }
            at = end;
        }
    }
}

/// Adds the names of one `use` tree, whose paths start with `prefix`.
fn add_uses(tree: &[&str], prefix: &[String], public: bool, uses: &mut Vec<Use>) {
    let mut path = prefix.to_vec();
    let mut rest = tree;
    loop {
        match rest {
            ["::", after @ ..] => rest = after,
            ["{", inside @ .., "}"] => {
                for branch in branches(inside) {
                    add_uses(branch, &path, public, uses);
                }
                return;
            }
            ["as", name] => return uses.push(Use { path, name: (*name).to_owned(), public }),
            // `a::{self, b}` brings in `a`.
            ["self", after @ ..] if !path.is_empty() => rest = after,
            [name, after @ ..] => {
                path.push((*name).to_owned());
                rest = after;
            }
            [] => {
                let Some(name) = path.last().cloned() else { return };
                return uses.push(Use { path, name, public });
            }
        }
    }
}

/// The parts between the commas of a list in braces.
fn branches<'a, 'b>(list: &'a [&'b str]) -> Vec<&'a [&'b str]> {
    let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
    while at < list.len() {
        match list[at] {
            "{" => at = after_group(list, at),
            "," => {
                parts.push(&list[start..at]);
                at += 1;
                start = at;
            }
            _ => at += 1,
        }
    }
    parts.push(&list[start..]);
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(text: &str) -> Vec<String> {
        let krate = Crate::read(&Sources::from([("src/lib.rs", text)]), "src/lib.rs");
        let show =
            |used: &Use| format!("{}{} = {}", if used.public { "pub " } else { "" }, used.name, used.path.join("::"));
        krate.modules[0].uses.iter().map(show).collect()
    }

    #[test]
    fn nested_braces_and_new_names_are_followed() {
        let text = "use crate::{a::{self, B as C, d::*}, e}; pub(crate) use super::f::{g,};";
        let expected = ["a = crate::a", "C = crate::a::B", "* = crate::a::d::*", "e = crate::e", "pub g = super::f::g"];
        assert_eq!(uses(text), expected);
        assert_eq!(uses("fn f() { use super::{g, h}; }"), ["g = super::g", "h = super::h"]);
    }

    #[test]
    fn files_of_modules_are_found_where_rust_looks_for_them() {
        let sources = Sources::from([
            (
                "src/lib.rs",
                "mod a; mod b; mod inline { mod c; } #[path = \"../shared/d.rs\"] mod d; mod e { fn f() {} }",
            ),
            ("src/a/mod.rs", "mod x;"),
            ("src/a/x.rs", ""),
            ("src/b.rs", "mod y;"),
            ("src/b/y.rs", ""),
            ("src/inline/c.rs", ""),
            ("shared/d.rs", ""),
        ]);
        let files: BTreeSet<_> =
            Crate::read(&sources, "src/lib.rs").modules.into_iter().map(|module| module.file).collect();
        let expected: BTreeSet<String> = sources.ending(".rs").map(|(path, _)| path.to_owned()).collect();
        assert_eq!(files, expected);
    }

    #[test]
    fn what_a_module_defines_is_known_by_name() {
        let text = "pub struct A<T>(T); pub(crate) enum B { X } const fn c() {} pub const D: [u8; 2] = [{ 1 }; 2];
            static mut E: u8 = 0; unsafe extern \"C\" fn f() {} type G = A<u8>; macro_rules! h { () => {} } impl A<u8> {}
            pub trait I: Sized { fn inner(); } #[derive(Debug)] pub union J { a: u8 } async fn k() {}";
        let krate = Crate::read(&Sources::from([("src/lib.rs", text)]), "src/lib.rs");
        let expected = ["A", "B", "c", "D", "E", "f", "G", "h", "I", "J", "k"].map(str::to_owned);
        assert_eq!(krate.modules[0].defined, BTreeSet::from(expected));
    }

    #[test]
    fn paths_in_code_are_kept_and_fields_are_not() {
        let text = "fn f() -> crate::a::B { super::c::d(..self::e::F, g.h::<crate::i::J>(), k.l) }";
        let krate = Crate::read(&Sources::from([("src/lib.rs", text)]), "src/lib.rs");
        let paths: Vec<_> = krate.modules[0].paths.iter().map(|path| path.join("::")).collect();
        assert_eq!(paths, ["crate::a::B", "super::c::d", "self::e::F", "crate::i::J"]);
        assert!(krate.modules[0].mentioned.contains("g") && !krate.modules[0].mentioned.contains("l"));
    }
}
