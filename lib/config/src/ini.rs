//! INI files as Python's configparser reads them: agent.conf and broker.conf.
//!
//! `[section]`, then `key = value` or `key: value`; `#` and `;` start comment lines; an indented line goes on with the
//! value before it; keys are case-insensitive; `%%` in a value is a percent sign.

use std::path::{Path, PathBuf};

use crate::error::{ConfigError, Result};

/// A parsed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ini {
    path: PathBuf,
    entries: Vec<Entry>,
}

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub line: usize,
    pub section: String,
    pub key: String,
    pub value: String,
}

impl Ini {
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut section: Option<String> = None;
        for (index, raw) in text.lines().enumerate() {
            let line = raw.trim();
            let error = |reason: &str| ConfigError::Syntax {
                path: path.to_owned(),
                line: index + 1,
                text: raw.chars().take(200).collect(),
                reason: reason.to_owned(),
            };
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if raw.starts_with([' ', '\t'])
                && let Some(last) = entries.last_mut().filter(|last| Some(&last.section) == section.as_ref())
            {
                last.value.push('\n');
                last.value.push_str(line);
                continue;
            }
            if let Some(name) = line.strip_prefix('[') {
                let name = name.split_once(']').ok_or_else(|| error("the closing \"]\" is missing"))?.0;
                section = Some(name.to_owned());
                continue;
            }
            let Some(section) = &section else { return Err(error("a key before the first [section]")) };
            let end = line.find(['=', ':']).ok_or_else(|| error("key = value expected"))?;
            let key = line[..end].trim().to_lowercase();
            if key.is_empty() {
                return Err(error("a value without a key"));
            }
            if entries.iter().any(|entry| entry.section == *section && entry.key == key) {
                return Err(error("this key stands twice in its section; remove one of the two"));
            }
            let value = line[end + 1..].trim().to_owned();
            entries.push(Entry { line: index + 1, section: section.clone(), key, value });
        }
        for entry in &mut entries {
            entry.value = entry.value.replace("%%", "%");
        }
        Ok(Self { path: path.to_owned(), entries })
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    pub fn section<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| entry.section == name)
    }

    pub fn bad_value(&self, entry: &Entry, expected: &str) -> ConfigError {
        ConfigError::Value {
            path: self.path.clone(),
            line: entry.line,
            key: entry.key.clone(),
            value: entry.value.clone(),
            expected: expected.to_owned(),
        }
    }

    /// The value as a number in `range`.
    pub fn number<T: std::str::FromStr + PartialOrd>(
        &self,
        entry: &Entry,
        range: std::ops::RangeInclusive<T>,
        expected: &str,
    ) -> Result<T> {
        entry
            .value
            .parse()
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| self.bad_value(entry, expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_both_separators_continuations_and_percent() {
        let ini = Ini::parse(Path::new("x"), "# c\n; c\n[A]\nKey = one\n  two\nother: 5%%\n\n[b]\nkey=3\n")
            .unwrap();
        let a: Vec<_> = ini.section("A").map(|e| (e.key.as_str(), e.value.as_str())).collect();
        assert_eq!(a, [("key", "one\ntwo"), ("other", "5%")]);
        assert_eq!(ini.section("b").count(), 1);
    }

    #[test]
    fn errors_name_the_line() {
        for (text, part) in [
            ("key=1\n", "x:1: a key before"),
            ("[a\n", "x:1: the closing"),
            ("[a]\nword\n", "x:2: key = value"),
            ("[a]\nk=1\nK=2\n", "x:3: this key stands twice"),
        ] {
            let error = Ini::parse(Path::new("x"), text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_never_panics(text in "([\\[\\]=:;# a-c%\u{e9}]{0,16}\n){0,8}") {
            let _ = Ini::parse(Path::new("x"), &text);
        }
    }
}
