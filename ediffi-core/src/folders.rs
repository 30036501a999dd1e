//! Replacing a folder as a whole, such as that of a model, and noticing that it was.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// How the name of a folder that is being written ends.
const NEW: &str = ".new";
/// How the name of one that was taken out of the way ends.
const OLD: &str = ".old";

/// Replaces `folder` by what `write` puts into a new folder beside it. Readers see the old folder or the new one, never a mixture: on
/// Linux the two change places at once, and a kill leaves the old folder or the new one. Elsewhere, and in file systems that cannot do that,
/// there is none for a moment; after a kill in that moment [`recover`] puts the old one back. What else a kill leaves the next call removes.
///
/// Only one program may replace a folder at a time. A reader that opens file after file has to look whether all are of one folder: see
/// [`Identity`].
///
/// # Errors
/// [`Error::WriteFile`] naming `folder`, and those of `write`. `folder` is as it was then.
pub fn replace<E: From<Error>>(
    folder: &Path,
    write: impl FnOnce(&Path) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    // A link stays where it is: what it leads to is replaced.
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    recover(&folder)?;
    let failed = |source| E::from(Error::WriteFile { path: folder.clone(), source });
    if folder.exists() && !folder.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    let (parent, name) = split(&folder).map_err(failed)?;
    fs::create_dir_all(&parent).map_err(failed)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(&name).suffix(NEW);
    // `tempfile` makes folders that only the user can read. These get the usual permissions, less the umask.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    let new = builder.tempdir_in(&parent).map_err(failed)?;
    write(new.path())?;
    sync(new.path()).and_then(|()| swap(new.path(), &folder)).map_err(failed)?;
    // Some file systems cannot sync a folder. The new one is in its place by now, so that is no failure.
    #[cfg(unix)]
    let _ = File::open(&parent).and_then(|parent| parent.sync_all());
    // What has the new folder's name now is the old one, or nothing.
    drop(new);
    Ok(())
}

/// Removes what killed replacements of `folder` have left, and puts the old one back where it was out of the way. Call it where nobody
/// else replaces `folder`.
///
/// # Errors
/// [`Error::WriteFile`] naming what cannot be removed.
pub fn recover(folder: &Path) -> Result<()> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::WriteFile { path, source }
    };
    let (parent, name) = split(folder).map_err(failed(folder))?;
    // A folder that is not there holds nothing.
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let (found, left) = (entry.file_name(), entry.path());
        let random = found.to_str().zip(name.to_str()).and_then(|(found, name)| found.strip_prefix(name));
        let is = |suffix: &str| {
            let random = random.and_then(|random| random.strip_suffix(suffix));
            // Six letters and digits, as `tempfile` makes them.
            random.is_some_and(|random| random.len() == 6 && random.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        };
        if is(OLD) && !folder.exists() {
            tracing::info!(folder = %left.display(), "putting back what was taken out of the way");
            fs::rename(&left, folder).map_err(failed(folder))?;
        } else if is(OLD) || is(NEW) {
            tracing::info!(folder = %left.display(), "removing what was left of a replacement");
            fs::remove_dir_all(&left).map_err(failed(&left))?;
        }
    }
    Ok(())
}

/// The folder that `folder` lies in, and how the names of its siblings here begin.
fn split(folder: &Path) -> io::Result<(PathBuf, OsString)> {
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = folder.file_name().ok_or_else(|| io::Error::other("it has no name of its own"))?;
    // Hidden: lists of models leave it out.
    let mut sibling = OsString::from(".");
    sibling.push(name);
    sibling.push(".");
    Ok((parent.to_owned(), sibling))
}

/// Brings the names of a folder's files to the disk. Whoever wrote the files has brought them there.
fn sync(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync(&entry.path())?;
        }
    }
    #[cfg(unix)]
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Puts `new` in the place of `folder`, and what was there in the place of `new`.
fn swap(new: &Path, folder: &Path) -> io::Result<()> {
    if !folder.exists() {
        return fs::rename(new, folder);
    }
    match exchange(new, folder) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => one_by_one(new, folder),
        done => done,
    }
}

/// Lets two folders change places at once.
#[cfg(target_os = "linux")]
fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
}

#[cfg(not(target_os = "linux"))]
fn exchange(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Takes `folder` out of the way, and puts `new` in its place.
fn one_by_one(new: &Path, folder: &Path) -> io::Result<()> {
    let old = new.with_extension(OLD.trim_start_matches('.'));
    fs::rename(folder, &old)?;
    if let Err(error) = fs::rename(new, folder) {
        fs::rename(&old, folder)?;
        return Err(error);
    }
    // What cannot be removed is left for the next time.
    if let Err(error) = fs::remove_dir_all(&old) {
        tracing::warn!(%error, folder = %old.display(), "the old folder is left");
    }
    Ok(())
}

/// Which folders they are that have some paths, as long as this lives.
#[derive(Debug)]
pub struct Identity(Vec<Held>);

/// A folder that had a path.
#[derive(Debug)]
struct Held {
    path: PathBuf,
    /// Open, so that its number is not given to another.
    #[cfg(unix)]
    open: Option<File>,
}

impl Identity {
    /// That of the folder that has the path now.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        Self::of_all([path])
    }

    /// That of the folders that have these paths now.
    pub fn of_all<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let held = |path: &Path| Held {
            path: path.to_owned(),
            #[cfg(unix)]
            open: File::open(path).ok(),
        };
        Self(paths.into_iter().map(held).collect())
    }

    /// Whether both are of the same paths, whatever is there now.
    #[must_use]
    pub fn same_paths(&self, other: &Self) -> bool {
        self.0.iter().map(|held| &held.path).eq(other.0.iter().map(|held| &held.path))
    }

    /// Whether the paths still lead to the same folders. What was opened there before is of these folders then. Always, where the system does
    /// not tell folders apart.
    ///
    /// # Errors
    /// [`Error::FolderReplaced`] with the first path that does not.
    pub fn check(&self) -> Result<()> {
        match self.0.iter().find(|held| held.is_replaced()) {
            Some(held) => Err(Error::FolderReplaced(held.path.clone())),
            None => Ok(()),
        }
    }
}

impl Held {
    #[cfg(unix)]
    fn is_replaced(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        let number = |found: io::Result<fs::Metadata>| found.ok().map(|found| (found.dev(), found.ino()));
        let known = self.open.as_ref().and_then(|open| number(open.metadata()));
        known.is_some() && number(fs::metadata(&self.path)) != known
    }

    /// This system does not tell folders apart.
    #[cfg(not(unix))]
    fn is_replaced(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a folder whose two files hold `text`.
    fn filled(text: &'static str) -> impl FnOnce(&Path) -> Result<()> {
        move |folder| {
            ["a", "b"].into_iter().try_for_each(|name| crate::files::write_atomic(&folder.join(name), text.as_bytes()))
        }
    }

    fn read(folder: &Path) -> [String; 2] {
        ["a", "b"].map(|name| fs::read_to_string(folder.join(name)).unwrap())
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_is_replaced_and_nothing_else_is_left() {
        let within = tempfile::tempdir().unwrap();
        let folder = within.path().join("model");
        for text in ["one", "two"] {
            replace(&folder, filled(text)).unwrap();
            assert_eq!(read(&folder), [text, text]);
            assert_eq!(names(within.path()), ["model"]);
        }
        // Where folders cannot change places at once.
        let new = within.path().join(".model.abc123.new");
        fs::create_dir(&new).unwrap();
        filled("three")(&new).unwrap();
        one_by_one(&new, &folder).unwrap();
        assert_eq!((read(&folder), names(within.path())), (["three"; 2].map(str::to_owned), vec!["model".to_owned()]));
    }

    #[test]
    fn a_writer_that_fails_leaves_the_old_folder() {
        let within = tempfile::tempdir().unwrap();
        let folder = within.path().join("model");
        replace(&folder, filled("one")).unwrap();
        let half = replace(&folder, |new| {
            fs::write(new.join("a"), "half").unwrap();
            Err(Error::NotFinite("it".to_owned()))
        });
        assert!(matches!(half, Err(Error::NotFinite(_))));
        assert_eq!((read(&folder), names(within.path())), (["one"; 2].map(str::to_owned), vec!["model".to_owned()]));
        let nowhere = replace::<Error>(Path::new("/"), |_| Ok(())).unwrap_err();
        assert!(matches!(nowhere, Error::WriteFile { .. }), "{nowhere}");
    }

    /// Whatever a kill left: a folder half written, one that was taken out of the way, and both; and what others put there.
    #[test]
    fn what_killed_replacements_leave_is_removed_or_put_back() {
        let within = tempfile::tempdir().unwrap();
        let (folder, path) = (within.path().join("model"), |name: &str| within.path().join(name));
        for name in [".model.abc123.new", ".model.abc12.new", ".other.abc123.new", "model.new"] {
            fs::create_dir(path(name)).unwrap();
        }
        fs::create_dir(path(".model.xyz789.old")).unwrap();
        filled("old")(&path(".model.xyz789.old")).unwrap();
        recover(&folder).unwrap();
        assert_eq!(read(&folder), ["old"; 2]);
        assert_eq!(names(within.path()), [".model.abc12.new", ".other.abc123.new", "model", "model.new"]);
        fs::create_dir(path(".model.xyz789.old")).unwrap();
        replace(&folder, filled("new")).unwrap();
        assert_eq!(read(&folder), ["new"; 2]);
        assert_eq!(names(within.path()), [".model.abc12.new", ".other.abc123.new", "model", "model.new"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_was_replaced_is_noticed() {
        let within = tempfile::tempdir().unwrap();
        let folder = within.path().join("model");
        replace(&folder, filled("one")).unwrap();
        let first = Identity::of(&folder);
        first.check().unwrap();
        // Files within it may come and go.
        fs::write(folder.join("c"), "more").unwrap();
        first.check().unwrap();
        for _ in 0..3 {
            replace(&folder, filled("two")).unwrap();
            assert!(matches!(first.check(), Err(Error::FolderReplaced(path)) if path == folder));
        }
        let other = within.path().join("other");
        replace(&other, filled("other")).unwrap();
        let both = Identity::of_all([other.as_path(), &folder]);
        both.check().unwrap();
        assert!(!both.same_paths(&first) && first.same_paths(&Identity::of(&folder)));
        fs::remove_dir_all(&folder).unwrap();
        assert!(first.check().is_err());
        assert!(matches!(both.check(), Err(Error::FolderReplaced(path)) if path == folder));
    }

    /// A reader that opens both files of one folder has both of one text.
    #[cfg(target_os = "linux")]
    #[test]
    fn no_mixture_passes_for_a_folder() {
        let within = tempfile::tempdir().unwrap();
        let folder = within.path().join("model");
        replace(&folder, filled("one")).unwrap();
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                (0..100).for_each(|n| replace(&folder, filled(if n % 2 == 0 { "two" } else { "one" })).unwrap())
            });
            let mut whole = 0;
            while !writing.is_finished() || whole == 0 {
                let identity = Identity::of(&folder);
                let texts = ["a", "b"].map(|name| fs::read_to_string(folder.join(name)));
                if let ([Ok(a), Ok(b)], Ok(())) = (texts, identity.check()) {
                    assert_eq!(a, b);
                    whole += 1;
                }
            }
        });
    }
}
