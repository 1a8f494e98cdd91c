//! Answer files: what the operator would type, written down.
//!
//! ```text
//! # a comment
//! [environment:default]
//! OVEHOSTED_STORAGE/domainType=str:nfs
//! OVEHOSTED_VM/vmMemSizeMB=int:4096
//! ```
//!
//! The form is otopi's, whose files are read as they are: `key=type:value` with the types `str`, `int`, `bool`, `none`
//! and `multi-str` (one line each, indented); a comment begins with `#` or `;`; `%` is written twice. Of the sections
//! `enforce` wins over `override`, that over `init`, that over `default`; others mean nothing. Which keys there are is
//! in [`super::questions`].

mod error;
mod former;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::path::Path;

use ha_config::Secret;
use ha_config::atomic::{self, Mode};
use ha_config::text::bool_text;

pub use error::AnswersError;
#[cfg(test)]
pub(super) use former::{Former, former_keys};
pub use read::{Loaded, load};

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `str`
    Text(String),
    /// `int`
    Integer(i64),
    /// `bool`
    Bool(bool),
    /// `none`: as good as no answer.
    None,
    /// `multi-str`
    Lines(Vec<String>),
    /// The text of a key that holds a password. It is never written.
    Secret(Secret),
}

impl Value {
    /// As an operator would type it at the prompt; `None` for [`Value::None`].
    pub fn typed(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Integer(number) => Some(number.to_string()),
            Self::Bool(true) => Some("yes".to_owned()),
            Self::Bool(false) => Some("no".to_owned()),
            Self::None => None,
            Self::Lines(lines) => Some(lines.join("\n")),
            Self::Secret(secret) => Some(secret.reveal().to_owned()),
        }
    }

    /// `type:value`, the later lines of a `multi-str` indented; `None` for a secret.
    fn written(&self) -> Option<String> {
        let double = |text: &str| text.replace('%', "%%");
        Some(match self {
            Self::Text(text) => format!("str:{}", double(text)),
            Self::Integer(number) => format!("int:{number}"),
            Self::Bool(value) => format!("bool:{}", bool_text(*value)),
            Self::None => "none:None".to_owned(),
            Self::Lines(lines) => format!("multi-str:{}", double(&lines.join("\n    "))),
            Self::Secret(_) => return None,
        })
    }
}

/// Answers by their keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    values: BTreeMap<String, Value>,
}

impl Answers {
    /// The answer to a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// Adds an answer, or replaces it.
    pub fn set(&mut self, key: impl Into<String>, value: Value) {
        self.values.insert(key.into(), value);
    }

    /// Takes an answer out.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.values.remove(key)
    }

    /// All, by their keys' order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Writes them to a file that only its owner may read.
    ///
    /// # Errors
    /// Of the file system.
    pub fn save(&self, path: &Path) -> Result<(), AnswersError> {
        Ok(atomic::write(path, self.to_string().as_bytes(), Mode::Private)?)
    }
}
