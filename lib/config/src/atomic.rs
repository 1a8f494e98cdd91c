//! Replacing a file so that a reader, or a crash at any moment, sees either the old text or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{ConfigError, Result, io};

/// Permissions of the written file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The old file's permissions; `0o644` when there is none.
    KeepOr644,
    /// Nothing for others, for files with secrets: an existing file loses the permissions that others had (its
    /// group may be the daemons' and keeps its own), a new one is `0o600`.
    Private,
}

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Writes `bytes` to `path`: to a new file beside it, synced, renamed over it, directory synced. Owner and
/// permissions of an existing file are kept (see [`Mode`]); a new one belongs to whom its directory belongs, so that
/// daemons of less rights find what root made for them. A symbolic link is followed, not replaced.
pub fn write(path: &Path, bytes: &[u8], mode: Mode) -> Result<()> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let old = match fs::metadata(&target) {
        Ok(old) => Some(old),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(io("look at", &target)(error)),
    };
    let bits = match (mode, &old) {
        (Mode::Private, Some(old)) => old.permissions().mode() & 0o770,
        (Mode::Private, None) => 0o600,
        (Mode::KeepOr644, Some(old)) => old.permissions().mode() & 0o7777,
        (Mode::KeepOr644, None) => 0o644,
    };
    let temporary = temporary_beside(&target)?;
    let owner = old.or_else(|| fs::metadata(target.parent()?).ok());
    let written = fill(&temporary, bytes, bits, owner.as_ref())
        .and_then(|()| fs::rename(&temporary, &target).map_err(io("replace", &target)));
    if let Err(error) = written {
        // Nothing more can be done about a leftover than to say what failed first.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_directory_of(&target)
}

fn temporary_beside(target: &Path) -> Result<PathBuf> {
    let name = target.file_name().ok_or_else(|| ConfigError::Io {
        action: "write",
        path: target.to_owned(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path names no file"),
    })?;
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.{number}.new", std::process::id()));
    Ok(target.with_file_name(temporary))
}

/// Removes what [`write`] left beside `path` when it was killed: files of its form of name.
///
/// # Errors
/// When the directory cannot be read, or one of them stays.
pub fn remove_leftovers(path: &Path) -> Result<()> {
    let Some((directory, name)) = path.parent().zip(path.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(io("read", directory))?,
    };
    for entry in entries {
        let entry = entry.map_err(io("read", directory))?;
        let found = entry.file_name();
        let middle = found.to_str().and_then(|found| {
            found.strip_prefix('.')?.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(".new")
        });
        let is_ours = middle
            .and_then(|middle| middle.split_once('.'))
            .is_some_and(|(pid, number)| pid.parse::<u32>().is_ok() && number.parse::<u32>().is_ok());
        if is_ours {
            fs::remove_file(entry.path()).map_err(io("remove", &entry.path()))?;
        }
    }
    Ok(())
}

fn fill(path: &Path, bytes: &[u8], bits: u32, owner: Option<&fs::Metadata>) -> Result<()> {
    // A leftover of a crashed process with the same number.
    let _ = fs::remove_file(path);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io("create", path))?;
    if let Some(owner) = owner {
        let new = file.metadata().map_err(io("look at", path))?;
        if (owner.uid(), owner.gid()) != (new.uid(), new.gid()) {
            match fchown(&file, Some(owner.uid()), Some(owner.gid())) {
                // Not root: the file becomes the writer's, which may write here anyway.
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
                other => other.map_err(io("set the owner of", path))?,
            }
        }
    }
    file.set_permissions(fs::Permissions::from_mode(bits)).map_err(io("set permissions of", path))?;
    file.write_all(bytes).map_err(io("write", path))?;
    file.sync_all().map_err(io("sync", path))
}

/// Makes sure that a name just created, replaced or removed in `path`'s directory survives a power loss.
pub fn sync_directory_of(path: &Path) -> Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory).and_then(|dir| dir.sync_all()).map_err(io("sync", directory))
}

/// Reads a text file; bytes that are not UTF-8 become U+FFFD, so that one bad comment does not stop a host.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(io("read", path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_leftovers_of_the_same_file_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let keep = ["a.conf", ".a.conf.new", ".a.conf.1.x.new", ".b.conf.1.2.new", ".a.conf.1.2.old"];
        for name in keep.iter().chain([&".a.conf.12.0.new"]) {
            fs::write(dir.path().join(name), "").unwrap();
        }
        remove_leftovers(&dir.path().join("a.conf")).unwrap();
        let left = fs::read_dir(dir.path()).unwrap().count();
        assert!(left == keep.len() && !dir.path().join(".a.conf.12.0.new").exists());
        remove_leftovers(&dir.path().join("gone/a.conf")).unwrap();
    }

    use super::*;

    #[test]
    fn replaces_and_keeps_the_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.conf");
        write(&path, b"one", Mode::KeepOr644).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        write(&path, b"two", Mode::KeepOr644).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        write(&path, b"three", Mode::Private).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write(&path, b"four", Mode::Private).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640, "others lose theirs");
        write(&dir.path().join("new"), b"", Mode::Private).unwrap();
        let new = fs::metadata(dir.path().join("new")).unwrap();
        assert_eq!(new.permissions().mode() & 0o777, 0o600);
        fs::remove_file(dir.path().join("new")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn follows_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        write(&link, b"new", Mode::KeepOr644).unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn says_which_file_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let error = write(&dir.path().join("no/such/x.conf"), b"", Mode::Private).unwrap_err();
        assert!(error.to_string().contains("no/such/"), "{error}");
    }
}
