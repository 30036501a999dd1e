//! What `.cargo/config.toml` has to say, so that builds find libtorch, and programs that are started without Cargo, too.

use std::error::Error;
use std::path::Path;

use ediffi_libtorch::{RPATH, rpath};
use toml_edit::{Array, DocumentMut, Item, Table, value};

/// How rustc is given an argument of the linker.
const LINK: &str = "-Clink-arg=";
/// The systems that this one's flag is for.
const TARGET: &str =
    if cfg!(target_os = "macos") { "cfg(target_os = \"macos\")" } else { "cfg(target_os = \"linux\")" };

/// The configuration `text`, with the place of the libtorch in `torch`. All else stays as it is, comments too.
pub(crate) fn with(text: &str, torch: &Path) -> Result<String, Box<dyn Error>> {
    let mut document: DocumentMut = text.parse()?;
    let torch = torch.to_str().ok_or_else(|| format!("{} is not UTF-8: choose another folder", torch.display()))?;
    let env = table(document.as_table_mut(), "env")?;
    // A `LIBTORCH` of the environment still wins: it is not forced.
    match env.get_mut("LIBTORCH").and_then(Item::as_table_like_mut) {
        Some(detailed) => {
            detailed.insert("value", value(torch));
            detailed.remove("relative");
        }
        None => drop(env.insert("LIBTORCH", value(torch))),
    }
    let bad = |end| format!("{torch}: a linker cannot be given a path with {end:?}: choose another folder");
    if let Some(argument) = rpath(Path::new(torch)).map_err(bad)? {
        let flags = flags(&mut document)?;
        let ours = |flag: &str| flag.strip_prefix(LINK).is_some_and(|argument| argument.starts_with(RPATH));
        flags.retain(|flag| !flag.as_str().is_some_and(ours));
        flags.push(format!("{LINK}{argument}"));
    }
    Ok(document.to_string())
}

/// The flags that Cargo will read. Those of a target hide those of all builds, so they stand where there are some already.
fn flags(document: &mut DocumentMut) -> Result<&mut Array, Box<dyn Error>> {
    let root = document.as_table_mut();
    let for_all = root.get("build").and_then(Item::as_table_like).is_some_and(|build| build.contains_key("rustflags"));
    let owner = if for_all {
        table(root, "build")?
    } else {
        let targets = table(root, "target")?;
        targets.set_implicit(true);
        table(targets, TARGET)?
    };
    let flags = owner.entry("rustflags").or_insert_with(|| value(Array::new()));
    // Cargo reads one text, split at its spaces, as well as a list.
    if let Some(text) = flags.as_str() {
        *flags = value(text.split_whitespace().collect::<Array>());
    }
    flags.as_array_mut().ok_or_else(|| "`rustflags` is neither a list nor a text".into())
}

fn table<'a>(within: &'a mut Table, key: &str) -> Result<&'a mut Table, Box<dyn Error>> {
    let item = within.entry(key).or_insert_with(toml_edit::table);
    // `env = { A = "b" }` becomes a table of its own.
    if let Some(inline) = item.as_inline_table() {
        *item = Item::Table(inline.clone().into_table());
    }
    item.as_table_mut().ok_or_else(|| format!("`{key}` is no table").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &str, torch: &str) -> String {
        with(text, Path::new(torch)).unwrap()
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn an_empty_configuration_gets_two_tables() {
        let expected = "[env]\nLIBTORCH = \"/a b/torch\"\n\n[target.'cfg(target_os = \"linux\")']\n\
                        rustflags = [\"-Clink-arg=-Wl,-rpath,$ORIGIN:/a b/torch/lib\"]\n";
        assert_eq!(after("", "/a b/torch"), expected);
    }

    #[test]
    fn a_second_run_changes_nothing_and_another_folder_replaces_the_first() {
        let once = after("", "/one/torch");
        assert_eq!(after(&once, "/one/torch"), once);
        let moved = after(&once, "/two/torch");
        assert!(!moved.contains("/one") && moved == after("", "/two/torch"), "{moved}");
    }

    #[test]
    fn what_else_is_there_stays() {
        let text = "# ours\n[alias]\nxtask = \"run\" # kept\n\n[env]\nLIBTORCH = { value = \"x\", relative = true, force = true }\nA = \"b\"\n";
        let new = after(text, "/t");
        for kept in ["# ours", "xtask = \"run\" # kept", "A = \"b\"", "force = true", "value = \"/t\""] {
            assert!(new.contains(kept), "{kept}: {new}");
        }
        assert!(!new.contains("relative"), "{new}");
        assert!(after("env = { A = \"b\" }\n", "/t").contains("A = \"b\""));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn flags_stand_where_cargo_would_read_them() {
        // Flags of a target would hide these.
        let new = after("[build]\nrustflags = \"-C target-cpu=native\"\n", "/t");
        assert!(
            new.contains(r#"rustflags = ["-C", "target-cpu=native", "-Clink-arg=-Wl,-rpath,$ORIGIN:/t/lib"]"#),
            "{new}"
        );
        assert!(!new.contains("[target"), "{new}");
        let new = after("[target.'cfg(target_os = \"linux\")']\nrustflags = [\"-Cdebuginfo=1\"]\n", "/t");
        assert!(new.contains(r#"["-Cdebuginfo=1", "-Clink-arg=-Wl,-rpath,$ORIGIN:/t/lib"]"#), "{new}");
    }

    #[test]
    fn what_cannot_be_written_is_refused_by_name() {
        for (text, torch, culprit) in [
            ("[env", "/t", "TOML"),
            ("env = 1\n", "/t", "`env`"),
            ("[build]\nrustflags = 1\n", "/t", "`rustflags`"),
            ("", "/a,b", "','"),
            ("", "/a:b", "':'"),
        ] {
            let error = with(text, Path::new(torch)).unwrap_err().to_string();
            assert!(error.contains(culprit), "{culprit}: {error}");
        }
    }
}
