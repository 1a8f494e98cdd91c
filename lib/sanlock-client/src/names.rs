//! Names and paths that fit into sanlock's fixed fields, checked once at their construction.
//!
//! No I/O. The daemon cuts what is too long without a word, and separates names by `:` and space in the text
//! that its inquiry gives back; refusing such names here is what keeps two leases from being taken for one.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Bytes of a lockspace's or resource's name on the wire and on disk.
pub const NAME_LEN: usize = 48;
/// Bytes of a path on the wire, its closing NUL included.
pub const PATH_LEN: usize = 1024;

/// Why a name or path cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing in it.
    #[error("the {what} is empty: give it a name")]
    Empty {
        /// What kind of name.
        what: &'static str,
    },
    /// It would be cut.
    #[error("the {what} '{value}' has {len} bytes; sanlock takes at most {max}")]
    TooLong {
        /// What kind of name.
        what: &'static str,
        /// The name.
        value: String,
        /// Its length in bytes, escapes of a path counted.
        len: usize,
        /// The greatest length in bytes.
        max: usize,
    },
    /// It has a character that sanlock's own texts use as a separator, or one that cannot be printed.
    #[error("the {what} '{value}' contains {found:?}, which sanlock cannot carry: leave it out")]
    BadCharacter {
        /// What kind of name.
        what: &'static str,
        /// The name, with what cannot be printed escaped.
        value: String,
        /// The first offending character.
        found: char,
    },
    /// A path must not depend on the daemon's working directory.
    #[error("the path '{value}' is relative: sanlock needs it from the root, starting with '/'")]
    Relative {
        /// The path.
        value: String,
    },
}

fn check_name(what: &'static str, value: &str) -> Result<(), NameError> {
    if value.is_empty() {
        return Err(NameError::Empty { what });
    }
    if let Some(found) = value.chars().find(|c| matches!(c, ':' | ' ' | '\\') || c.is_control()) {
        return Err(NameError::BadCharacter { what, value: value.escape_debug().to_string(), found });
    }
    if value.len() > NAME_LEN {
        return Err(NameError::TooLong { what, value: value.to_owned(), len: value.len(), max: NAME_LEN });
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// Checks the name: 1 to 48 bytes without `:`, `\`, space and control characters.
            pub fn new(value: impl Into<String>) -> Result<Self, NameError> {
                let value = value.into();
                check_name($what, &value)?;
                Ok(Self(value))
            }

            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// Name of a lockspace.
    LockspaceName,
    "lockspace name"
);
name_type!(
    /// Name of a resource in its lockspace.
    ResourceName,
    "resource name"
);

/// Absolute path of the file or block device that carries leases.
///
/// A path with spaces works for everything but [`Registration::inquire`](crate::Registration::inquire) and
/// [`Client::inquire_pid`](crate::Client::inquire_pid): the daemon refuses to list a lease on such a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskPath(PathBuf);

impl DiskPath {
    /// Checks the path: absolute, no control characters, fewer than 1024 bytes with `:` and space counted twice
    /// (sanlock escapes them).
    pub fn new(value: impl Into<PathBuf>) -> Result<Self, NameError> {
        const WHAT: &str = "path";
        let value = value.into();
        let bytes = value.as_os_str().as_bytes();
        let shown = || value.display().to_string().escape_debug().to_string();
        if bytes.is_empty() {
            return Err(NameError::Empty { what: WHAT });
        }
        if let Some(found) = bytes.iter().find(|b| b.is_ascii_control() || **b == b'\\') {
            return Err(NameError::BadCharacter { what: WHAT, value: shown(), found: char::from(*found) });
        }
        if !value.is_absolute() {
            return Err(NameError::Relative { value: shown() });
        }
        let escapes = bytes.iter().filter(|b| matches!(b, b':' | b' ')).count();
        let len = bytes.len() + escapes;
        if len >= PATH_LEN {
            return Err(NameError::TooLong { what: WHAT, value: shown(), len, max: PATH_LEN - 1 });
        }
        Ok(Self(value))
    }

    /// The path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for DiskPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_sanlock_would_cut_or_mix_up_are_refused_by_value() {
        assert!(LockspaceName::new("x".repeat(48)).is_ok());
        let error = LockspaceName::new("x".repeat(49)).unwrap_err().to_string();
        assert!(error.contains("49 bytes") && error.contains("at most 48"), "{error}");
        let error = ResourceName::new("a:b").unwrap_err().to_string();
        assert_eq!(error, "the resource name 'a:b' contains ':', which sanlock cannot carry: leave it out");
        assert!(ResourceName::new("a b").is_err());
        assert!(ResourceName::new("a\0b").is_err());
        assert_eq!(ResourceName::new("").unwrap_err(), NameError::Empty { what: "resource name" });
    }

    #[test]
    fn paths_are_absolute_and_fit_with_their_escapes() {
        assert!(DiskPath::new(format!("/{}", "p".repeat(1022))).is_ok());
        assert!(matches!(
            DiskPath::new(format!("/{}", "p".repeat(1023))),
            Err(NameError::TooLong { len: 1024, max: 1023, .. })
        ));
        assert!(matches!(DiskPath::new(format!("/{}", ":".repeat(512))), Err(NameError::TooLong { .. })));
        assert!(matches!(DiskPath::new("ids"), Err(NameError::Relative { .. })));
        assert!(matches!(DiskPath::new("/a\nb"), Err(NameError::BadCharacter { found: '\n', .. })));
    }
}
