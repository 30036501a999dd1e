//! The crates of the workspace, and the arrows between them.

use super::sources::{Sources, folder_of};

/// What each library of the workspace may import of the others: an arrow for each pair.
const ARROWS: [(&str, &[&str]); 6] = [
    ("ediffi-core", &[]),
    ("ediffi-encoders", &["ediffi-core"]),
    ("ediffi-paint", &["ediffi-core"]),
    ("ediffi-cascade", &["ediffi-core"]),
    ("ediffi-train", &["ediffi-core", "ediffi-cascade"]),
    ("ediffi", &["ediffi-core", "ediffi-encoders", "ediffi-paint", "ediffi-cascade"]),
];

/// The folder of the programs that may import any crate, and that no library may import.
const TOOLS: &str = "tools/";

/// A package of the workspace.
#[derive(Debug, PartialEq)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// `""`, or a path that ends with `/`.
    pub(crate) folder: String,
    /// Names of the packages that it is built with; not those of its tests and examples.
    pub(crate) dependencies: Vec<String>,
}

impl Package {
    /// The root files of its library and its programs.
    pub(crate) fn roots<'a>(&self, sources: &'a Sources) -> Vec<&'a str> {
        let src = format!("{}src/", self.folder);
        let is_root = |path: &str| match path.strip_prefix(&src) {
            Some("lib.rs" | "main.rs") => true,
            Some(inside) => inside.strip_prefix("bin/").is_some_and(|program| {
                program.ends_with(".rs")
                    && (!program.contains('/') || program.split_once('/').is_some_and(|(_, file)| file == "main.rs"))
            }),
            None => false,
        };
        sources.ending(".rs").map(|(path, _)| path).filter(|path| is_root(path)).collect()
    }
}

/// The packages of the checkout: every `Cargo.toml` that names one.
pub(crate) fn packages(sources: &Sources) -> Vec<Package> {
    let manifests = sources.ending("Cargo.toml");
    manifests.filter_map(|(path, text)| package(path, text)).collect()
}

fn package(path: &str, text: &str) -> Option<Package> {
    let folder = folder_of(path);
    let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let (mut section, mut name, mut dependencies) = ("", None, Vec::new());
    for line in text.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_matches(['[', ']']);
            // `[dependencies.name]`
            if let Some((table, dependency)) = section.rsplit_once('.')
                && is_dependencies(table)
            {
                dependencies.push(dependency.to_owned());
            }
            continue;
        }
        let Some((key, value)) = line.split_once('=').map(|(key, value)| (key.trim(), value.trim())) else { continue };
        if section == "package" && key == "name" {
            name = Some(value.trim_matches('"').to_owned());
        } else if is_dependencies(section) {
            let renamed = value.split_once("package").and_then(|(_, rest)| rest.split('"').nth(1));
            let key = key.split('.').next().unwrap_or(key);
            dependencies.push(renamed.unwrap_or(key).to_owned());
        }
    }
    Some(Package { name: name?, folder, dependencies })
}

/// `dependencies`, those of a build script, and those of one target.
fn is_dependencies(section: &str) -> bool {
    section != "workspace.dependencies"
        && (section == "dependencies" || section == "build-dependencies" || section.ends_with(".dependencies"))
}

/// One line for each dependency that runs against the arrows.
pub(crate) fn wrong_arrows(packages: &[Package]) -> Vec<String> {
    let mut lines = Vec::new();
    for package in packages.iter().filter(|package| !package.folder.starts_with(TOOLS)) {
        let allowed = ARROWS.iter().find(|(name, _)| *name == package.name).map_or(&[][..], |(_, allowed)| allowed);
        for dependency in &package.dependencies {
            let ours = packages.iter().any(|other| other.name == *dependency);
            if ours && !allowed.contains(&dependency.as_str()) {
                lines.push(format!("{}Cargo.toml: {} may not import {dependency}", package.folder, package.name));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str, rest: &str) -> String {
        format!("[package]\nname = \"{name}\"\n{rest}")
    }

    #[test]
    fn dependencies_are_read_in_every_form() {
        let text =
            "[dependencies]\nediffi-core.workspace = true\ntch = { version = \"1\" }\nx = { package = \"ediffi\" }
            [dev-dependencies]\ntempfile = \"3\"\n[dependencies.serde]\nversion = \"1\"\n[build-dependencies]\nb = \"1\"
            [target.'cfg(unix)'.dependencies]\nlibc = \"1\"\n[target.'cfg(unix)'.dev-dependencies]\nd = \"1\"";
        let found = package("a/Cargo.toml", &manifest("a", text)).unwrap();
        assert_eq!((found.name.as_str(), found.folder.as_str()), ("a", "a/"));
        assert_eq!(found.dependencies, ["ediffi-core", "tch", "ediffi", "serde", "b", "libc"]);
        assert_eq!(package("Cargo.toml", "[workspace]\n[workspace.dependencies]\ntch = \"1\""), None);
    }

    #[test]
    fn an_import_against_the_arrows_is_named() {
        let core = manifest("ediffi-core", "[dependencies]\ntch = \"1\"");
        let paint =
            |dependency: &str| manifest("ediffi-paint", &format!("[dependencies]\n{dependency}.workspace = true"));
        let encoders = manifest("ediffi-encoders", "[dependencies]\nediffi-core.workspace = true");
        let tool = manifest("tool", "[dependencies]\nediffi-core.workspace = true\nediffi-paint.workspace = true");
        let check = |paint: &str| {
            let files = [
                ("core/Cargo.toml", core.as_str()),
                ("encoders/Cargo.toml", &encoders),
                ("paint/Cargo.toml", paint),
                ("tools/tool/Cargo.toml", &tool),
            ];
            wrong_arrows(&packages(&Sources::from(files)))
        };
        assert_eq!(check(&paint("ediffi-core")), [""; 0]);
        let against = paint("ediffi-encoders");
        assert_eq!(check(&against), ["paint/Cargo.toml: ediffi-paint may not import ediffi-encoders"]);
        assert_eq!(check(&paint("tool")), ["paint/Cargo.toml: ediffi-paint may not import tool"]);
        assert_eq!(check(&against.replace("[dep", "[dev-dep")), [""; 0]);
    }

    #[test]
    fn a_package_has_a_root_for_its_library_and_each_program() {
        let files = ["lib.rs", "main.rs", "a.rs", "bin/b.rs", "bin/c/main.rs", "bin/c/d.rs"];
        let paths = files.map(|file| format!("x/src/{file}"));
        let files: [_; 6] = std::array::from_fn(|k| (paths[k].as_str(), ""));
        let package = Package { name: "x".into(), folder: "x/".into(), dependencies: Vec::new() };
        let expected = ["x/src/bin/b.rs", "x/src/bin/c/main.rs", "x/src/lib.rs", "x/src/main.rs"];
        assert_eq!(package.roots(&Sources::from(files)), expected);
    }
}
