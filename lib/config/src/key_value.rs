//! Files of `key=value` lines: hosted-engine.conf, ha.conf, answers.conf.
//!
//! A line whose first visible character is `#` is a comment; a line without `=` is passed over; key and value are
//! trimmed; of a key that stands twice the last line counts. Changing a key keeps every other line as it is.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::atomic::{self, Mode};
use crate::error::{ConfigError, Result, io};
use crate::secret::is_secret_key;
use crate::text::{BOOL_EXPECTED, parse_bool};

/// One file's lines.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyValueFile {
    path: PathBuf,
    lines: Vec<String>,
}

/// A key's value and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    /// Line number, from 1.
    pub line: usize,
    /// The value, trimmed.
    pub value: &'a str,
}

fn split(line: &str) -> Option<(&str, &str)> {
    if line.trim_start().starts_with('#') {
        return None;
    }
    let (key, value) = line.split_once('=')?;
    Some((key.trim(), value.trim()))
}

impl KeyValueFile {
    /// Reads a text. `path` is for error texts and for [`KeyValueFile::write`].
    pub fn parse(path: impl Into<PathBuf>, text: &str) -> Self {
        Self { path: path.into(), lines: text.lines().map(str::to_owned).collect() }
    }

    /// Reads a file.
    pub fn load(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let text = atomic::read_text(&path)?;
        Ok(Self::parse(path, &text))
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last value of `key`, with its line.
    pub fn find(&self, key: &str) -> Option<Found<'_>> {
        self.entries().rev().find_map(|(line, found, value)| (found == key).then_some(Found { line, value }))
    }

    /// The last value of `key`; an empty value and the word `None` count as no value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.find(key).map(|found| found.value).filter(|value| !value.is_empty() && *value != "None")
    }

    /// Like [`KeyValueFile::get`]; an error that says what is `expected` when there is no value.
    pub fn require(&self, key: &str, expected: &str) -> Result<&str> {
        self.get(key).ok_or_else(|| ConfigError::Missing {
            path: self.path.clone(),
            key: key.to_owned(),
            expected: expected.to_owned(),
        })
    }

    /// A value turned into something else; `None` without a value, an error when `read` gives `None`.
    pub fn get_as<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.bad_value(key, expected)),
        }
    }

    /// A boolean by the rule of [`parse_bool`].
    pub fn get_bool(&self, key: &str) -> Result<Option<bool>> {
        self.get_as(key, BOOL_EXPECTED, parse_bool)
    }

    /// The error for the value that `key` has now.
    pub fn bad_value(&self, key: &str, expected: &str) -> ConfigError {
        let found = self.find(key).unwrap_or(Found { line: 0, value: "" });
        let value = if is_secret_key(key) { "…" } else { found.value };
        ConfigError::Value {
            path: self.path.clone(),
            line: found.line,
            key: key.to_owned(),
            value: value.to_owned(),
            expected: expected.to_owned(),
        }
    }

    /// All pairs in their order, with their line numbers from 1.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = (usize, &str, &str)> {
        self.lines.iter().enumerate().filter_map(|(index, line)| {
            let (key, value) = split(line)?;
            Some((index + 1, key, value))
        })
    }

    /// Gives `key` a value: on its last line if it has one, else on a new line at the end. Line breaks in the
    /// value become spaces.
    pub fn set(&mut self, key: &str, value: &str) {
        let line = format!("{key}={}", value.replace(['\n', '\r'], " "));
        match self.find(key).map(|found| found.line) {
            Some(number) => self.lines[number - 1] = line,
            None => self.lines.push(line),
        }
    }

    /// Removes every line of `key`.
    pub fn unset(&mut self, key: &str) {
        self.lines.retain(|line| split(line).is_none_or(|(found, _)| found != key));
    }

    /// The whole text, each line ended.
    pub fn text(&self) -> String {
        self.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    /// Replaces the file atomically. A file that holds a password is closed to others.
    pub fn write(&self) -> Result<()> {
        let secret = self.entries().any(|(_, key, value)| is_secret_key(key) && !value.is_empty());
        let mode = if secret { Mode::Private } else { Mode::KeepOr644 };
        atomic::write(&self.path, self.text().as_bytes(), mode)
    }

    /// Changes a file that other processes change too: locks its directory, reads it again, lets `change` set keys,
    /// writes it. Creates the file when it is missing; its directory must exist.
    pub fn update(path: &Path, change: impl FnOnce(&mut Self)) -> Result<Self> {
        let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let lock = File::open(directory).map_err(io("open", directory))?;
        lock.lock().map_err(io("lock", directory))?;
        let mut file = match Self::load(path) {
            Err(error) if error.is_not_found() => Self::parse(path, ""),
            other => other?,
        };
        change(&mut file);
        file.write()?;
        Ok(file)
    }
}

impl fmt::Debug for KeyValueFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.path.display())?;
        f.debug_map()
            .entries(
                self.entries().map(|(_, key, value)| (key, if is_secret_key(key) { "…" } else { value })),
            )
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str =
        "# head\nhost_id=1\n\nfqdn = engine.example.com\nodd line\nhost_id=2\npassword=hunter2\n";

    #[test]
    fn reads_like_the_existing_tools() {
        let file = KeyValueFile::parse("x.conf", TEXT);
        assert_eq!(file.get("host_id"), Some("2"));
        assert_eq!(file.get("fqdn"), Some("engine.example.com"));
        assert_eq!(file.get("# head"), None);
        assert_eq!(file.find("host_id").unwrap().line, 6);
        assert!(!format!("{file:?}").contains("hunter2"));
    }

    #[test]
    fn none_and_empty_are_no_value() {
        let file = KeyValueFile::parse("x.conf", "a=None\nb=\nc= maybe\n");
        assert_eq!((file.get("a"), file.get("b")), (None, None));
        let error = file.get_bool("c").unwrap_err().to_string();
        assert!(error.contains("x.conf:3: c=\"maybe\""), "{error}");
        let error = file.require("d", "a name").unwrap_err().to_string();
        assert!(error.contains("the key d is missing"), "{error}");
    }

    #[test]
    fn setting_keeps_the_rest() {
        let mut file = KeyValueFile::parse("x.conf", TEXT);
        file.set("host_id", "3");
        file.set("new", "a\nb");
        assert_eq!(
            file.text(),
            "# head\nhost_id=1\n\nfqdn = engine.example.com\nodd line\nhost_id=3\npassword=hunter2\nnew=a b\n"
        );
        file.unset("host_id");
        assert_eq!(file.find("host_id"), None);
    }

    #[test]
    fn update_makes_and_changes_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ha.conf");
        KeyValueFile::update(&path, |file| file.set("a", "1")).unwrap();
        KeyValueFile::update(&path, |file| file.set("b", "2")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a=1\nb=2\n");
    }

    proptest! {
        #[test]
        fn any_text_is_readable_and_survives(text in "\\PC*(\n\\PC*){0,5}", key in "[a-z_]{1,8}", value in "[!-~]{1,12}") {
            let mut file = KeyValueFile::parse("x", &text);
            file.set(&key, &value);
            let again = KeyValueFile::parse("x", &file.text());
            prop_assert_eq!(again.find(&key).map(|f| f.value), Some(value.as_str()));
            prop_assert_eq!(again.text(), file.text());
        }
    }
}
