//! Files with one secret. They are refused unless only their owner can read them, and the owner is root or the user who
//! runs this program: a password that others could read, or set, is none.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ha_config::Secret;
use ha_config::ha_toml::check_option_value;

/// Longer than any secret that an agent could pass on.
const MAX_BYTES: u64 = 4096;

/// Why a file with a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The system refused.
    #[error("cannot read the password file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A directory, a device or a pipe.
    #[error("the password file {} is not a regular file", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner may use it.
    #[error(
        "the password file {} has mode {mode:04o}, so that others than its owner can use it; do: chmod 600 {}",
        path.display(), path.display()
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to somebody who has no business with it.
    #[error(
        "the password file {} belongs to the user {owner}; it must belong to root{}",
        path.display(),
        if *user == 0 { String::new() } else { format!(" or to the user {user}, who runs this program") }
    )]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner's number.
        owner: u32,
        /// The user who runs this program.
        user: u32,
    },
    /// There is no usable secret in it.
    #[error("the password file {} {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, without the content.
        reason: &'static str,
    },
}

/// Reads the first line of a file that only its owner (root or the user who runs this program) can read.
pub fn read_secret_file(path: &Path) -> Result<Secret, SecretFileError> {
    read_as(path, rustix::process::geteuid().as_raw())
}

fn read_as(path: &Path, user: u32) -> Result<Secret, SecretFileError> {
    let io = |source| SecretFileError::Io { path: path.to_owned(), source };
    // Not blocking: a pipe in its place must not hold us up.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(io)?;
    // Of the open file, so that it cannot be another one in between.
    let facts = file.metadata().map_err(io)?;
    if !facts.is_file() {
        return Err(SecretFileError::Kind { path: path.to_owned() });
    }
    if facts.uid() != 0 && facts.uid() != user {
        return Err(SecretFileError::Owner { path: path.to_owned(), owner: facts.uid(), user });
    }
    let mode = facts.mode() & 0o7777;
    if mode & 0o177 != 0 {
        return Err(SecretFileError::Mode { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    let content = |reason| SecretFileError::Content { path: path.to_owned(), reason };
    if bytes.len() as u64 > MAX_BYTES {
        return Err(content("has more than 4096 bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| content("is not UTF-8"))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(content("has no password in its first line"));
    }
    check_option_value(line).map_err(content)?;
    Ok(Secret::new(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host2.password");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    fn refusal(content: &[u8], mode: u32) -> String {
        let (_folder, path) = file(content, mode);
        read_secret_file(&path).unwrap_err().to_string()
    }

    #[test]
    fn the_first_line_is_the_password() {
        for (content, mode) in [(&b"s3cret"[..], 0o600), (b"s3cret\r\nmore\n", 0o400)] {
            let (_folder, path) = file(content, mode);
            assert_eq!(read_secret_file(&path).unwrap().reveal(), "s3cret");
        }
    }

    #[test]
    fn a_file_that_others_can_use_is_refused() {
        for mode in [0o640, 0o604, 0o620, 0o700, 0o644] {
            let said = refusal(b"s3cret", mode);
            assert!(said.contains(&format!("mode {mode:04o}")) && said.contains("chmod 600"), "{said}");
            assert!(!said.contains("s3cret"));
        }
    }

    #[test]
    fn a_file_of_somebody_else_is_refused() {
        let (_folder, path) = file(b"s3cret", 0o600);
        let owner = fs::metadata(&path).unwrap().uid();
        if owner == 0 {
            std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
            let said = read_as(&path, 0).unwrap_err().to_string();
            assert!(said.contains("belongs to the user 12345; it must belong to root"), "{said}");
            assert!(read_as(&path, 12345).is_ok());
        }
        let said = read_as(&path, 54321).unwrap_err().to_string();
        assert!(said.contains("or to the user 54321"), "{said}");
    }

    #[test]
    fn what_holds_no_password_is_named() {
        assert!(refusal(b"", 0o600).contains("no password in its first line"));
        assert!(refusal(b"\nx\n", 0o600).contains("no password in its first line"));
        assert!(refusal(b"a\xff", 0o600).contains("is not UTF-8"));
        assert!(refusal(b"a\tb", 0o600).contains("has a control character"));
        assert!(refusal(b"ab ", 0o600).contains("ends with white space"));
        assert!(refusal(&[b'a'; 5000], 0o600).contains("more than 4096 bytes"));
        let (folder, _) = file(b"", 0o600);
        assert!(read_secret_file(folder.path()).unwrap_err().to_string().contains("not a regular file"));
        let missing = read_secret_file(&folder.path().join("no")).unwrap_err().to_string();
        assert!(missing.contains("cannot read the password file"), "{missing}");
    }
}
