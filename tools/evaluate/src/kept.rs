//! The outcomes of a run so far, kept so that a run that was stopped goes on.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::path::{Path, PathBuf};

use ediffi::StageConfig;
use ediffi_train::lineage::fingerprint;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::judge::Judge;
use crate::model::Model;
use crate::placed::{Outcome, Placed};

/// What a file of outcomes holds.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kept {
    /// What they are outcomes of: see [`key`].
    key: String,
    /// By rule and w'.
    pub(crate) outcomes: BTreeMap<String, Vec<Outcome>>,
}

impl Kept {
    /// What an earlier run left, if it was of the same kind.
    pub(crate) fn open(path: &Path, key: String) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let found: Option<Self> = serde_json::from_str(&text).ok().filter(|kept: &Self| kept.key == key);
        found.unwrap_or(Self { key, outcomes: BTreeMap::new() })
    }
}

/// What outcomes depend on: the base with its settings, the encoders, the judge and the prompts.
pub(crate) fn key(model: &Model, judge: &Judge, prompts: &[Placed]) -> Result<String> {
    Ok([key_of(model, &[model.base()?])?, judge.fingerprint.clone(), hash(prompts)].join(" "))
}

/// What pictures of the whole cascade depend on, beside the prompts: every stage with its settings, and the encoders.
pub(crate) fn model_key(model: &Model) -> Result<String> {
    key_of(model, &model.stages().iter().collect::<Vec<_>>())
}

fn key_of(model: &Model, stages: &[&StageConfig]) -> Result<String> {
    let folder = model.pipeline.folder();
    let encoders = &model.pipeline.manifest().encoders;
    let mut parts = Vec::new();
    for stage in stages {
        parts.extend([serde_json::to_string(stage)?, serde_json::to_string(&stage.settings)?]);
        let networks = stage.experts.iter().filter_map(|expert| expert.network.as_ref());
        let weights = stage.experts.iter().map(|expert| &expert.weights);
        for path in weights.chain(networks).chain([&stage.network]) {
            parts.push(fingerprint(&folder.join(path))?);
        }
    }
    for encoder in [&encoders.t5, &encoders.clip].into_iter().flatten() {
        for file in files(&folder.join(encoder))? {
            parts.push(fingerprint(&file)?);
        }
    }
    Ok(parts.join(" "))
}

/// The files of a folder by name, those of its folders too.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |source| ediffi_core::Error::ReadFile { path: folder.to_owned(), source };
    let entries = std::fs::read_dir(folder).map_err(failed)?.map(|entry| entry.map(|entry| entry.path()));
    let mut entries = entries.collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
    entries.sort();
    let mut found = Vec::new();
    for path in entries {
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

/// Captions, boxes and seeds. A compiler with another hasher draws the pictures again, which is safe.
fn hash(prompts: &[Placed]) -> String {
    let mut hasher = DefaultHasher::new();
    for Placed { scene, areas, held_out, seed } in prompts {
        // The words are closed off: "a", "b" is not "ab".
        hasher.write(scene.caption.as_bytes());
        hasher.write_u8(0xFF);
        let sides = areas.iter().flat_map(|area| [area.x, area.y, area.width, area.height]);
        sides.for_each(|side| hasher.write_u32(side.to_bits()));
        hasher.write_u8(u8::from(*held_out));
        hasher.write_u64(*seed);
    }
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use ediffi_core::files::write_json;

    use super::*;
    use crate::error::Error;
    use crate::placed::placed;

    #[test]
    fn a_run_goes_on_only_with_outcomes_of_its_own_kind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept.json");
        let mut kept = Kept::open(&path, "a".to_owned());
        assert!(kept.outcomes.is_empty());
        let outcome = Outcome { seen: 1, inside: 1, iou: 0.25, style: None };
        kept.outcomes.insert("no paint 0".to_owned(), vec![outcome]);
        write_json(&path, &kept).unwrap();
        assert_eq!(Kept::open(&path, "a".to_owned()).outcomes["no paint 0"], [outcome]);
        assert!(Kept::open(&path, "b".to_owned()).outcomes.is_empty());
    }

    #[test]
    fn other_captions_boxes_or_seeds_are_another_kind() {
        let prompts = placed(4, |_| Ok(true)).unwrap();
        assert_eq!(hash(&prompts), hash(&placed(4, |_| Ok(true)).unwrap()));
        let changes: [fn(&mut Placed); 3] =
            [|prompt| prompt.scene.caption.push('s'), |prompt| prompt.areas[1].y += 0.01, |prompt| prompt.seed += 1];
        for change in changes {
            let mut other = prompts.clone();
            change(&mut other[2]);
            assert_ne!(hash(&other), hash(&prompts));
        }
        assert_ne!(hash(&prompts[..3]), hash(&prompts));
    }

    #[test]
    fn files_of_folders_are_found_in_order() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("b")).unwrap();
        let expected = ["a.json", "b/c.json", "d.json"].map(|name| folder.path().join(name));
        expected.iter().for_each(|path| std::fs::write(path, "{}").unwrap());
        assert_eq!(files(folder.path()).unwrap(), expected);
        assert!(matches!(files(&folder.path().join("none")), Err(Error::Core(ediffi_core::Error::ReadFile { .. }))));
    }
}
