//! The folder of a run: whose it is.

use std::fs;
use std::path::Path;

use ediffi_core::files::{read_json, write_json, write_with_folders};
use ediffi_train::run::Begin;
use serde::{Deserialize, Serialize};

use crate::error::file_error;
use crate::plan::Plan;
use crate::{Error, Result};

/// What says whose the folder is.
const RECORD: &str = "run.json";
/// The plan as it was read, beside it.
pub(crate) const PLAN: &str = "plan.toml";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// The name of the plan.
    plan: String,
    /// The fingerprint of the data.
    data: String,
}

/// Takes the folder for a run: a new one, or one that is there of this plan and these data.
///
/// # Errors
/// [`Error::Exists`] for a new run where one is, [`Error::OtherRun`] to go on from another, [`Error::NoRun`] for a folder of something else.
pub(crate) fn take(folder: &Path, begin: Begin, plan: &Plan, data: &str) -> Result<()> {
    let record = folder.join(RECORD);
    if record.is_file() {
        let found: Record = read_json(&record)?;
        if begin == Begin::New {
            return Err(Error::Exists { folder: folder.to_owned(), plan: found.plan });
        }
        for (what, found, expected) in [("plan", found.plan, plan.name.clone()), ("data", found.data, data.to_owned())]
        {
            if found != expected && begin == Begin::Resume {
                return Err(Error::OtherRun { folder: folder.to_owned(), what, found, expected });
            }
        }
    } else if folder.is_dir() && fs::read_dir(folder).map_err(file_error(folder))?.next().is_some() {
        return Err(Error::NoRun { folder: folder.to_owned() });
    }
    if begin == Begin::Resume && record.is_file() {
        return Ok(());
    }
    write_plan(folder, plan)?;
    Ok(write_json(&record, &Record { plan: plan.name.clone(), data: data.to_owned() })?)
}

/// Writes the plan into the folder of its run: when that begins, and when all is trained, since what may change on the way may have changed.
pub(crate) fn write_plan(folder: &Path, plan: &Plan) -> Result<()> {
    Ok(write_with_folders(&folder.join(PLAN), plan.to_toml()?.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::find;

    #[test]
    fn a_folder_belongs_to_one_plan_and_one_set_of_data() {
        let plan = find("laptop").unwrap();
        let other = Plan { name: "other".to_owned(), ..plan.clone() };
        let within = tempfile::tempdir().unwrap();
        let folder = within.path().join("run");
        take(&folder, Begin::New, &plan, "one").unwrap();
        take(&folder, Begin::Resume, &plan, "one").unwrap();
        let error = |begin, plan: &Plan, data| take(&folder, begin, plan, data).unwrap_err();
        assert!(matches!(error(Begin::New, &plan, "one"), Error::Exists { plan, .. } if plan == "laptop"));
        let found = error(Begin::Resume, &other, "one");
        assert!(matches!(&found, Error::OtherRun { what: "plan", .. }), "{found}");
        let found = error(Begin::Resume, &plan, "two").to_string();
        assert!(found.contains("its data is one, not two"), "{found}");
        take(&folder, Begin::Restart, &other, "two").unwrap();
        take(&folder, Begin::Resume, &other, "two").unwrap();
        let error = take(within.path(), Begin::Resume, &plan, "one").unwrap_err();
        assert!(matches!(error, Error::NoRun { .. }), "{error}");
    }
}
