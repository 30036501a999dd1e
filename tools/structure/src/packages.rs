//! The crates of the workspace, and the arrows between them.

use cargo_metadata::camino::Utf8Path;
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// What each library of the workspace, and each command, may import of the others: an arrow for each pair.
const ARROWS: [(&str, &[&str]); 13] = [
    ("ediffi-libtorch", &[]),
    ("ediffi-core", &["ediffi-libtorch"]),
    ("ediffi-encoders", &["ediffi-core", "ediffi-libtorch"]),
    ("ediffi-paint", &["ediffi-core"]),
    ("ediffi-cascade", &["ediffi-core"]),
    ("ediffi-train", &["ediffi-core", "ediffi-cascade"]),
    ("ediffi-cluster", &["ediffi-train"]),
    ("ediffi-data", &["ediffi-core", "ediffi-encoders", "ediffi-train"]),
    ("ediffi", &["ediffi-core", "ediffi-encoders", "ediffi-paint", "ediffi-cascade", "ediffi-libtorch"]),
    ("ediffi-trainer", &["ediffi", "ediffi-core", "ediffi-cascade", "ediffi-encoders", "ediffi-train", "ediffi-data"]),
    ("ediffi-server", &["ediffi"]),
    // The library only with its feature `draw`: without, it is built where there is no libtorch yet.
    (
        "ediffi-cli",
        &[
            "ediffi-libtorch",
            "ediffi",
            "ediffi-core",
            "ediffi-train",
            "ediffi-cluster",
            "ediffi-data",
            "ediffi-trainer",
            "ediffi-server",
        ],
    ),
    // It is built where there is no libtorch yet.
    ("xtask", &["ediffi-libtorch"]),
];

/// The folder of the programs that may import any crate, and that no library may import.
const TOOLS: &str = "tools/";

/// What Cargo knows of the workspace.
pub(crate) fn read() -> Result<Metadata, cargo_metadata::Error> {
    MetadataCommand::new().no_deps().other_options(["--offline".to_owned()]).exec()
}

/// The root files of the libraries and the programs.
pub(crate) fn roots(workspace: &Metadata) -> impl Iterator<Item = String> {
    let targets = workspace.packages.iter().flat_map(|package| &package.targets);
    targets.filter(|target| target.is_lib() || target.is_bin()).map(|target| relative(workspace, &target.src_path))
}

/// One line for each dependency that runs against the arrows. Those of tests and examples do not count.
pub(crate) fn wrong_arrows(workspace: &Metadata) -> Vec<String> {
    let mut lines = Vec::new();
    for package in &workspace.packages {
        let manifest = relative(workspace, &package.manifest_path);
        let allowed = ARROWS.iter().find(|(name, _)| *package.name == *name).map_or(&[][..], |(_, allowed)| allowed);
        for dependency in &package.dependencies {
            let (name, for_tests) = (dependency.name.as_str(), dependency.kind == DependencyKind::Development);
            let ours = workspace.packages.iter().any(|other| *other.name == name);
            if ours && !for_tests && !allowed.contains(&name) && !manifest.starts_with(TOOLS) {
                lines.push(format!("{manifest}: {} may not import {name}", package.name));
            }
        }
    }
    lines
}

/// A path from the root, with `/` between folders.
fn relative(workspace: &Metadata, path: &Utf8Path) -> String {
    path.strip_prefix(&workspace.workspace_root).unwrap_or(path).as_str().replace('\\', "/")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Name and kind.
    type Dependency<'a> = (&'a str, Option<&'a str>);

    /// A workspace of libraries, made up for a test: name, folder and dependencies of each.
    pub(crate) fn workspace(packages: &[(&str, &str, &[Dependency<'_>])]) -> Metadata {
        let package = |&(name, folder, dependencies): &(&str, &str, &[Dependency<'_>])| {
            let dependency = |&(name, kind): &Dependency<'_>| {
                json!({"name": name, "kind": kind, "req": "*", "optional": false, "uses_default_features": true,
                    "features": [], "target": null, "source": null})
            };
            let target = json!({"name": name, "kind": ["lib"], "src_path": format!("/x/{folder}/src/lib.rs")});
            json!({"name": name, "version": "1.0.0", "id": name, "manifest_path": format!("/x/{folder}/Cargo.toml"),
                "dependencies": dependencies.iter().map(dependency).collect::<Vec<Value>>(), "targets": [target],
                "features": {}})
        };
        let packages: Vec<_> = packages.iter().map(package).collect();
        let metadata = json!({"packages": packages, "workspace_members": [], "resolve": null, "version": 1,
            "workspace_root": "/x", "target_directory": "/x/target"});
        serde_json::from_value(metadata).unwrap()
    }

    #[test]
    fn an_import_against_the_arrows_is_named() {
        let check = |dependency, kind| {
            wrong_arrows(&workspace(&[
                ("ediffi-core", "core", &[("tch", None)]),
                ("ediffi-encoders", "encoders", &[("ediffi-core", None)]),
                ("ediffi-paint", "paint", &[(dependency, kind)]),
                ("tool", "tools/tool", &[("ediffi-core", None), ("ediffi-paint", None)]),
            ]))
        };
        assert_eq!(check("ediffi-core", None), [""; 0]);
        for against in ["ediffi-encoders", "tool"] {
            let line = format!("paint/Cargo.toml: ediffi-paint may not import {against}");
            assert_eq!(check(against, None), [line.as_str()]);
            assert_eq!(check(against, Some("build")), [line.as_str()]);
            assert_eq!(check(against, Some("dev")), [""; 0]);
        }
    }

    #[test]
    fn the_packages_of_this_workspace_are_read() {
        let workspace = read().unwrap();
        let roots: Vec<_> = roots(&workspace).collect();
        for root in ["src/lib.rs", "ediffi-core/src/lib.rs", "tools/structure/src/main.rs"] {
            assert!(roots.iter().any(|found| found == root), "{root}: {roots:?}");
        }
        assert_eq!(wrong_arrows(&workspace), [""; 0]);
    }
}
