//! Reading files of a model folder, and writing files so that nobody ever sees half of one.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::brief::{brief, told_json};
use crate::published::quote_numbers_of_python;
use crate::{Error, Result};

/// The longest path in a file, in bytes. No system takes much longer ones.
const LONGEST_PATH: usize = 1024;

/// Joins `path` to `folder`, and makes sure that it stays inside. Symbolic links are allowed: the user put them there.
///
/// # Errors
/// [`Error::PathOutside`] for a path that is empty, absolute or contains `..`; [`Error::ReadFile`] for one of more than 1024 bytes.
pub fn path_inside(folder: &Path, path: &Path) -> Result<PathBuf> {
    if path.as_os_str().len() > LONGEST_PATH {
        let cut = brief(&path.to_string_lossy()).into_owned();
        let source =
            io::Error::new(io::ErrorKind::InvalidFilename, format!("its name has more than {LONGEST_PATH} bytes"));
        return Err(Error::ReadFile { path: PathBuf::from(cut), source });
    }
    let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if inside && !path.as_os_str().is_empty() {
        Ok(folder.join(path))
    } else {
        Err(Error::PathOutside { folder: folder.to_owned(), path: path.to_owned() })
    }
}

/// Reads a whole file.
///
/// # Errors
/// [`Error::ReadFile`].
pub fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| Error::ReadFile { path: path.to_owned(), source })
}

/// Reads a whole file of UTF-8 text.
///
/// # Errors
/// [`Error::ReadFile`].
pub fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|source| Error::ReadFile { path: path.to_owned(), source })
}

/// Reads a JSON file. A number of Python's that JSON has not, such as `NaN`, is read as a text.
///
/// # Errors
/// [`Error::ReadFile`], or [`Error::Json`] with the key and the line.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_str(&quote_numbers_of_python(&read_text(path)?))
        .map_err(|source| Error::Json { path: path.to_owned(), source: told_json(source) })
}

/// Writes `bytes` to `path`, replacing what is there; see [`write_atomic_with`].
///
/// # Errors
/// [`Error::WriteFile`].
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic_with(path, |file| file.write_all(bytes))
}

/// As [`write_atomic`], and makes the folders that `path` lies in.
///
/// # Errors
/// [`Error::WriteFile`].
pub fn write_with_folders(path: &Path, bytes: &[u8]) -> Result<()> {
    make_folder_of(path)?;
    write_atomic(path, bytes)
}

/// Writes `value` as JSON over several lines, and makes the folders that `path` lies in.
///
/// # Errors
/// [`Error::Json`] for a value that has no JSON, or [`Error::WriteFile`].
pub fn write_json(path: &Path, value: &(impl Serialize + ?Sized)) -> Result<()> {
    let json = serde_json::to_string_pretty(value).map_err(|source| Error::Json { path: path.to_owned(), source })?;
    write_with_folders(path, (json + "\n").as_bytes())
}

/// Makes the folder that `path` lies in, and those above it.
///
/// # Errors
/// [`Error::WriteFile`] naming `path`.
pub fn make_folder_of(path: &Path) -> Result<()> {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    made.map_err(|source| Error::WriteFile { path: path.to_owned(), source })
}

/// Replaces `path` by what `write` puts into a file. Readers see the old file or the new one, never a part, even if the
/// machine loses power. Several threads and programs may write the same file: the last one wins.
///
/// `write` gets a new file beside `path`, under a name that nobody else uses. When it returns, the file is synced to the
/// disk and renamed. If anything fails, the new file is removed and `path` stays as it was.
///
/// # Errors
/// [`Error::WriteFile`] naming `path`.
pub fn write_atomic_with(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    replace(folder, path, write).map_err(|source| Error::WriteFile { path: path.to_owned(), source })
}

/// Removes what killed programs have left of `path`: files that [`write_atomic_with`] had begun to write. Call it where nobody else
/// writes `path`.
///
/// # Errors
/// [`Error::WriteFile`] naming a file that cannot be removed.
pub fn remove_unfinished(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(name) = path.file_name().and_then(OsStr::to_str) else { return Ok(()) };
    // A folder that is not there holds nothing.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let file_name = entry.file_name();
        let random =
            file_name.to_str().and_then(|found| found.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(".tmp"));
        // Six letters and digits, as `tempfile` makes them.
        if random.is_some_and(|random| random.len() == 6 && random.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
            let left = entry.path();
            tracing::info!(file = %left.display(), "removing what was left of a write");
            fs::remove_file(&left).map_err(|source| Error::WriteFile { path: left, source })?;
        }
    }
    Ok(())
}

fn replace(folder: &Path, path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(".");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&name).suffix(".tmp");
    // `tempfile` makes files that only the user can read. These get the usual permissions, less the umask.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut new = builder.tempfile_in(folder)?;
    write(new.as_file_mut())?;
    new.as_file().sync_all()?;
    new.persist(path)?;
    // Some file systems cannot sync a folder. The file is in its place by now, so that is no failure.
    #[cfg(unix)]
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        for text in ["one", "two"] {
            write_atomic(&path, text.as_bytes()).unwrap();
            assert_eq!(read_text(&path).unwrap(), text);
        }
        assert_eq!(names(folder.path()), ["a.txt"]);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        // A folder stands where the file should go.
        let path = folder.path().join("taken");
        fs::create_dir_all(path.join("inside")).unwrap();
        let error = write_atomic(&path, b"x").unwrap_err();
        assert!(matches!(&error, Error::WriteFile { path: named, .. } if *named == path), "{error}");
        let path = folder.path().join("no/such/folder");
        assert!(matches!(write_atomic(&path, b"x"), Err(Error::WriteFile { path: named, .. }) if named == path));
        assert_eq!(names(folder.path()), ["taken"]);
        assert!(matches!(read_bytes(&folder.path().join("none")), Err(Error::ReadFile { .. })));
    }

    #[test]
    fn folders_are_made_where_that_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deeper/still/list.json");
        write_json(&path, &[1, 2]).unwrap();
        assert_eq!(read_text(&path).unwrap(), "[\n  1,\n  2\n]\n");
        // A file stands where a folder should go.
        let below = path.join("list.json");
        assert!(matches!(write_with_folders(&below, b"x"), Err(Error::WriteFile { path, .. }) if path == below));
        let value = std::collections::HashMap::from([([0_u8], 0)]);
        assert!(matches!(write_json(&path, &value), Err(Error::Json { .. })), "keys of JSON are texts");
        assert_eq!(names(path.parent().unwrap()), ["list.json"]);
    }

    #[test]
    fn a_writer_that_fails_half_way_leaves_the_old_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomic(&path, b"old").unwrap();
        let half = write_atomic_with(&path, |file| {
            file.write_all(b"ne")?;
            Err(io::Error::other("the disk is full"))
        });
        assert!(matches!(half, Err(Error::WriteFile { source, .. }) if source.to_string() == "the disk is full"));
        assert_eq!(read_text(&path).unwrap(), "old");
        assert_eq!(names(folder.path()), ["a.txt"]);
    }

    /// A write that is never finished, as that of a program that is killed, leaves its file.
    #[test]
    fn what_killed_writes_leave_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomic(&path, b"whole").unwrap();
        let mut left = None;
        write_atomic_with(&path, |_| {
            let unfinished = names(folder.path()).into_iter().find(|name| name.ends_with(".tmp"));
            left = unfinished.map(|name| folder.path().join(name));
            Ok(())
        })
        .unwrap();
        for name in [left.as_ref().unwrap().to_str().unwrap(), "b.txt.abc123.tmp", "a.txt.tmp", "a.txt.of mine.tmp"] {
            fs::write(folder.path().join(name), "part").unwrap();
        }
        remove_unfinished(&path).unwrap();
        let mut kept = names(folder.path());
        kept.sort();
        assert_eq!(kept, ["a.txt", "a.txt.of mine.tmp", "a.txt.tmp", "b.txt.abc123.tmp"]);
        remove_unfinished(&folder.path().join("none/a.txt")).unwrap();
    }

    /// Whoever may write into the folder could otherwise have the user overwrite any of the user's files.
    #[cfg(unix)]
    #[test]
    fn symbolic_links_are_replaced_and_never_written_through() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, "kept").unwrap();
        for link in ["a.txt", "a.txt.tmp", "a.tmp"] {
            symlink(&victim, folder.path().join(link)).unwrap();
        }
        let path = folder.path().join("a.txt");
        write_atomic(&path, b"new").unwrap();
        assert_eq!(read_text(&victim).unwrap(), "kept");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        assert_eq!(read_text(&path).unwrap(), "new");
        // As readable as any file that the user makes.
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&victim));
    }

    #[test]
    fn threads_that_write_the_same_file_leave_one_of_their_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let texts = ["a", "b"].map(|letter| letter.repeat(1 << 16));
        std::thread::scope(|scope| {
            for text in &texts {
                scope.spawn(|| (0..50).for_each(|_| write_atomic(&path, text.as_bytes()).unwrap()));
            }
            for _ in 0..200 {
                let seen = fs::read_to_string(&path).unwrap_or_else(|_| texts[0].clone());
                assert!(texts.contains(&seen), "a part of a file was seen, {} bytes", seen.len());
            }
        });
        assert_eq!(names(folder.path()), ["a.txt"]);
    }

    #[test]
    fn paths_lead_down_and_json_names_its_file() {
        let folder = Path::new("models/icons");
        assert_eq!(path_inside(folder, Path::new("./base/low")).unwrap(), folder.join("base/low"));
        for outside in ["", "/etc/passwd", "..", "base/../../x"] {
            let error = path_inside(folder, Path::new(outside)).unwrap_err();
            assert!(matches!(error, Error::PathOutside { .. }), "{outside}: {error}");
        }
        let error = path_inside(folder, Path::new(&"n".repeat(LONGEST_PATH + 1))).unwrap_err();
        assert!(matches!(error, Error::ReadFile { .. }) && error.to_string().len() < 200, "{error}");
        assert!(path_inside(folder, Path::new(&"n".repeat(LONGEST_PATH))).is_ok());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.json");
        write_atomic(&path, b"[1, 2]").unwrap();
        assert_eq!(read_json::<Vec<i64>>(&path).unwrap(), [1, 2]);
        let error = read_json::<String>(&path).unwrap_err();
        assert!(matches!(error, Error::Json { .. }) && error.to_string().contains("list.json"), "{error}");
    }
}
