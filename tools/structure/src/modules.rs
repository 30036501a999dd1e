//! The modules of a crate: what each defines, imports and names. What stands under `#[cfg(test)]` is left out.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::visit::{self, Visit};
use syn::{Attribute, Ident, Item, LitStr, UseTree, Visibility};

use crate::files::{Files, folder_of, join};

/// A module; its number is its place in [`Crate::modules`].
#[derive(Default)]
pub(crate) struct Module {
    /// The file that it stands in.
    pub(crate) file: String,
    pub(crate) parent: Option<usize>,
    pub(crate) children: BTreeMap<String, usize>,
    /// The names that are defined here, those of modules aside.
    pub(crate) defined: BTreeSet<String>,
    /// A `use` inside a function holds for the whole module here: names are seldom used for two things.
    pub(crate) uses: Vec<Use>,
    /// The paths in its code, other than in `use`; many are a single name.
    pub(crate) paths: BTreeSet<Vec<String>>,
}

/// What a `use` brings in.
pub(crate) struct Use {
    pub(crate) path: Vec<String>,
    /// What it is called here; `*` stands for everything in the module `path`.
    pub(crate) name: String,
    /// Whether others can import it from here.
    pub(crate) public: bool,
}

/// The modules of one library or program.
pub(crate) struct Crate<'a> {
    files: &'a Files,
    /// The first is the root.
    pub(crate) modules: Vec<Module>,
}

impl<'a> Crate<'a> {
    /// Reads the crate whose root is the file `root`.
    pub(crate) fn read(files: &'a Files, root: &str) -> Result<Self, String> {
        let mut krate = Self { files, modules: Vec::new() };
        krate.add(None, root, folder_of(root), krate.items(root)?)?;
        Ok(krate)
    }

    fn items(&self, file: &str) -> Result<Vec<Item>, String> {
        let parsed = syn::parse_file(self.files.0.get(file).map_or("", |text| text));
        parsed.map(|code| code.items).map_err(|error| format!("{file}: {error}"))
    }

    /// Adds the module that stands in `file`, and those below it. The files of its children lie in `folder`.
    fn add(&mut self, parent: Option<usize>, file: &str, folder: &str, items: Vec<Item>) -> Result<usize, String> {
        let index = self.modules.len();
        self.modules.push(Module { file: file.to_owned(), parent, ..Module::default() });
        for item in items.into_iter().filter(|item| !is_for_tests(item)) {
            let Item::Mod(child) = item else {
                self.modules[index].defined.extend(defined(&item).map(text));
                self.modules[index].visit_item(&item);
                continue;
            };
            let name = text(&child.ident);
            let below = format!("{folder}/{name}").trim_start_matches('/').to_owned();
            let number = if let Some((_, items)) = child.content {
                self.add(Some(index), file, &below, items)?
            } else if let Some(path) = child.attrs.iter().find_map(path_attribute) {
                let file = join(folder_of(file), &path);
                self.add(Some(index), &file, folder_of(&file), self.items(&file)?)?
            } else {
                let own_folder = Some(format!("{below}/mod.rs")).filter(|file| self.files.exists(file));
                let file = own_folder.unwrap_or_else(|| format!("{below}.rs"));
                self.add(Some(index), &file, &below, self.items(&file)?)?
            };
            self.modules[index].children.insert(name, number);
        }
        Ok(index)
    }
}

impl Module {
    /// Whether its code names `name`.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.paths.iter().chain(self.uses.iter().map(|used| &used.path)).flatten().any(|part| part == name)
    }

    /// Adds the names of a `use` tree, whose paths start with `path`.
    fn add_uses(&mut self, tree: &UseTree, path: &[String], public: bool) {
        let longer = |name| [path, &[text(name)]].concat();
        let (path, name) = match tree {
            UseTree::Path(tree) => return self.add_uses(&tree.tree, &longer(&tree.ident), public),
            UseTree::Group(group) => return group.items.iter().for_each(|tree| self.add_uses(tree, path, public)),
            UseTree::Glob(_) => (path.to_vec(), "*".to_owned()),
            // `a::{self, b}` brings in `a`.
            UseTree::Name(tree) if tree.ident == "self" => (path.to_vec(), path.last().cloned().unwrap_or_default()),
            UseTree::Name(tree) => (longer(&tree.ident), text(&tree.ident)),
            UseTree::Rename(tree) => (longer(&tree.ident), text(&tree.rename)),
        };
        self.uses.push(Use { path, name, public });
    }

    /// Adds the paths in the arguments of a macro: names with `::` between them. Fields and methods are none.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let (mut path, mut signs) = (Vec::new(), String::new());
        for tree in tokens {
            if let TokenTree::Punct(sign) = &tree {
                signs.push(sign.as_char());
                continue;
            }
            if signs != "::" {
                self.paths.insert(std::mem::take(&mut path));
            }
            match tree {
                TokenTree::Ident(name) if !signs.ends_with('.') || signs.ends_with("..") => path.push(text(&name)),
                TokenTree::Group(group) => self.add_tokens(group.stream()),
                _ => {}
            }
            signs.clear();
        }
        self.paths.insert(path);
    }
}

/// Defines visitors that leave out what is for tests.
macro_rules! without_tests {
    ($($visit:ident: $node:ident),*) => {
        $(fn $visit(&mut self, node: &'ast syn::$node) {
            if !is_for_tests(node) { visit::$visit(self, node); }
        })*
    };
}

impl<'ast> Visit<'ast> for Module {
    without_tests!(visit_item: Item, visit_impl_item: ImplItem, visit_trait_item: TraitItem, visit_field: Field);
    without_tests!(visit_variant: Variant, visit_stmt: Stmt, visit_arm: Arm, visit_field_value: FieldValue);

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_uses(&item.tree, &[], !matches!(item.vis, Visibility::Inherited));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.paths.insert(path.segments.iter().map(|segment| text(&segment.ident)).collect());
        visit::visit_path(self, path);
    }

    fn visit_pat_ident(&mut self, pattern: &'ast syn::PatIdent) {
        // It may be the name of a constant.
        self.paths.insert(vec![text(&pattern.ident)]);
        visit::visit_pat_ident(self, pattern);
    }

    fn visit_token_stream(&mut self, tokens: &'ast TokenStream) {
        self.add_tokens(tokens.clone());
    }
}

/// A name without the `r#` of a raw one.
fn text(name: &Ident) -> String {
    name.unraw().to_string()
}

/// The name that an item defines.
fn defined(item: &Item) -> Option<&Ident> {
    match item {
        Item::Const(item) => Some(&item.ident),
        Item::Enum(item) => Some(&item.ident),
        Item::Fn(item) => Some(&item.sig.ident),
        Item::Macro(item) => item.ident.as_ref(),
        Item::Static(item) => Some(&item.ident),
        Item::Struct(item) => Some(&item.ident),
        Item::Trait(item) => Some(&item.ident),
        Item::Type(item) => Some(&item.ident),
        Item::Union(item) => Some(&item.ident),
        _ => None,
    }
}

/// Whether an attribute `#[cfg(test)]` or `#[cfg(all(test, ...))]` stands before this.
fn is_for_tests(node: &impl ToTokens) -> bool {
    let first = |input: ParseStream<'_>| Ok((input.call(Attribute::parse_outer)?, input.parse::<TokenStream>()?).0);
    let attributes = first.parse2(node.to_token_stream()).unwrap_or_default();
    let mut texts = attributes.iter().map(|attribute| attribute.meta.to_token_stream().to_string().replace(' ', ""));
    texts.any(|text| text == "cfg(test)" || text.starts_with("cfg(all(test,"))
}

/// What an attribute `#[path = "..."]` says.
fn path_attribute(attribute: &Attribute) -> Option<String> {
    let value = attribute.meta.require_name_value().ok().filter(|value| value.path.is_ident("path"))?;
    syn::parse2::<LitStr>(value.value.to_token_stream()).ok().map(|path| path.value())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(text: &str) -> Module {
        Crate::read(&Files::from([("src/lib.rs", text)]), "src/lib.rs").unwrap().modules.remove(0)
    }

    fn paths(text: &str) -> Vec<String> {
        module(text).paths.iter().map(|path| path.join("::")).filter(|path| path.contains("::")).collect()
    }

    #[test]
    fn nested_braces_and_new_names_are_followed() {
        let uses = |text: &str| {
            let show = |used: &Use| {
                format!("{}{} = {}", if used.public { "pub " } else { "" }, used.name, used.path.join("::"))
            };
            module(text).uses.iter().map(show).collect::<Vec<_>>()
        };
        let text = "use crate::{a::{self, B as C, d::*}, r#e}; pub(crate) use super::f::{g, self as h};";
        let expected = [
            "a = crate::a",
            "C = crate::a::B",
            "* = crate::a::d",
            "e = crate::e",
            "pub g = super::f::g",
            "pub h = super::f::self",
        ];
        assert_eq!(uses(text), expected);
        assert_eq!(uses("fn f() { use super::{g, h}; }"), ["g = super::g", "h = super::h"]);
    }

    #[test]
    fn files_of_modules_are_found_where_rust_looks_for_them() {
        let root = "mod a; mod b; mod inline { mod c; } #[path = \"../shared/d.rs\"] mod d; mod e { fn f() {} }";
        let files = Files::from([
            ("src/lib.rs", root),
            ("src/a/mod.rs", "mod x;"),
            ("src/a/x.rs", ""),
            ("src/b.rs", "mod y;"),
            ("src/b/y.rs", ""),
            ("src/inline/c.rs", ""),
            ("shared/d.rs", ""),
        ]);
        let modules = Crate::read(&files, "src/lib.rs").unwrap().modules;
        let found: BTreeSet<_> = modules.iter().map(|module| module.file.as_str()).collect();
        assert_eq!(found, files.ending(".rs").map(|(path, _)| path).collect());
        assert!(Crate::read(&Files::from([("a.rs", "fn {")]), "a.rs").is_err_and(|error| error.starts_with("a.rs: ")));
    }

    #[test]
    fn what_a_module_defines_is_known_by_name() {
        let text = "pub struct A<T>(T); pub(crate) enum B { X } const fn c() {} pub const D: [u8; 2] = [{ 1 }; 2];
            static mut E: u8 = 0; unsafe extern \"C\" fn f() {} type G = A<u8>; macro_rules! h { () => {} } impl A<u8> {}
            pub trait I: Sized { fn inner(); } #[derive(Debug)] pub union J { a: u8 } async fn k() {}";
        let expected = ["A", "B", "c", "D", "E", "f", "G", "h", "I", "J", "k"].map(str::to_owned);
        assert_eq!(module(text).defined, BTreeSet::from(expected));
    }

    #[test]
    fn paths_in_code_and_in_macros_are_kept_and_fields_are_not() {
        let code = "super::c::d(..self::e::F, g.h::<crate::i::J>(), k.l)";
        for text in [format!("fn f() {{ {code} }}"), format!("fn f() {{ m!({code}) }}"), format!("m!{{ [{code}] }}")] {
            assert_eq!(paths(&text), ["crate::i::J", "self::e::F", "super::c::d"], "{text}");
            assert!(module(&text).names("g") && !module(&text).names("l"), "{text}");
        }
        assert_eq!(paths("struct A { #[b(c::d)] e: f::G<h::I> } // j::k"), ["c::d", "f::G", "h::I"]);
        assert_eq!(paths("fn a() { match b { c::D => \"e::f\" } }"), ["c::D"]);
    }

    #[test]
    fn tests_are_left_out_wherever_they_stand() {
        for text in [
            "#[cfg(test)] mod tests { use x; }",
            "#[cfg(test)] #[path = \"x\"] pub(crate) mod x;",
            "#[cfg(all(test, unix))] use x::{b, c};",
            "impl A { #[cfg(test)] fn b<T, U>(c: T) -> [u8; 2] { x } }",
            "enum A { #[cfg(test)] B(x, D), E }",
            "fn f() { #[cfg(test)] let a = x; #[cfg(test)] x(); g(A { #[cfg(test)] b: x }) }",
            "fn f() { match a { #[cfg(test)] x => b } }",
        ] {
            let module = module(text);
            assert!(!module.names("x") && module.children.is_empty(), "{text}");
        }
        for text in ["#[cfg(not(test))] use x;", "#[cfg(unix)] fn a() { x() }", "#[test] fn c() { x() }"] {
            assert!(module(text).names("x"), "{text}");
        }
    }
}
