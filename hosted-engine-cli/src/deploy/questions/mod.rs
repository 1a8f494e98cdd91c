//! What a deployment asks: one table, from which the dialogue, the answer files, the preview and their reference in
//! docs/answers.md are made.
//!
//! A [`Question`] is data and small functions of what is [`Known`]: the answers to those before it, the host, the
//! storage. Nothing here talks to anybody.

mod check;
mod engine;
pub mod keys;
mod known;
mod network;
#[cfg(test)]
mod reference;
mod storage;
#[cfg(test)]
mod tests;
mod vm;

use std::fmt;

use super::answers::Value;
use ha_config::Secret;

pub(super) use check::list;
pub use known::{Cluster, Device, Found, Gateway, HostFacts, Known, Lookups, Nic, StorageLookups, Target};
use vm::draw_mac;
pub(super) use vm::{ha_toml, word};

/// The parts of the dialogue, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// Where the cluster lives.
    Storage,
    /// Bridge and network test.
    Network,
    /// The engine VM.
    Vm,
    /// The engine, and this host in it.
    Engine,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Storage => "Storage",
            Self::Network => "Network",
            Self::Vm => "VM",
            Self::Engine => "Hosted engine",
        })
    }
}

/// What an answer looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One of these words, any case.
    Word(&'static [&'static str]),
    /// A line of text.
    Text,
    /// A whole number in this range.
    Integer(u64, u64),
    /// Yes or no.
    Bool,
    /// Lines of text.
    Lines,
    /// A password.
    Secret,
}

/// The answer that is proposed.
#[derive(Clone, Copy)]
pub enum Preset {
    /// None: somebody must say it.
    Nothing,
    /// Always this.
    Fixed(&'static str),
    /// What follows from earlier answers, the host or the storage; in the reference by these words.
    From(&'static str, fn(&Known<'_>) -> Option<String>),
}

/// When a question is asked.
#[derive(Clone, Copy)]
pub struct When {
    /// For the reference: `for iscsi`.
    pub words: &'static str,
    /// The same as a function.
    pub holds: fn(&Known<'_>) -> bool,
}

/// What must be found out before a question is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// The targets of the iSCSI portals.
    Targets,
    /// The devices of the block storage.
    Devices,
    /// The hosted engines on the storage.
    Clusters,
}

/// One of the answers to choose from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// What is answered.
    pub value: String,
    /// What it is, for people; may be empty.
    pub about: String,
}

/// One question.
#[derive(Clone, Copy)]
pub struct Question {
    /// Its key in answer files.
    pub key: &'static str,
    /// Where it is asked.
    pub section: Section,
    /// What it is called in the preview.
    pub label: &'static str,
    /// What the operator reads: `Please specify …`.
    pub prompt: &'static str,
    /// What helps to answer it; shown for `?`.
    pub explanation: &'static str,
    /// What an answer looks like.
    pub form: Form,
    /// What is proposed.
    pub preset: Preset,
    /// When it is asked at all.
    pub when: When,
    /// The answers to choose from, where they are known; empty: any.
    pub choices: fn(&Known<'_>) -> Vec<Choice>,
    /// Brings an answer of the right form into its normal form, or says what is wrong with it.
    pub check: fn(&Known<'_>, &str) -> Result<String, String>,
    /// `Some`: it may be empty, and then this stands in the preview.
    pub if_empty: Option<&'static str>,
    /// Taken from answer files or proposed, and asked for only where there is neither.
    pub is_quiet: bool,
    /// What is proposed differs from host to host: it is written into answer files only when something else was said.
    pub is_of_host: bool,
    /// What must be found out first.
    pub look: Option<Look>,
}

impl Question {
    /// What most questions have.
    const BASE: Self = Self {
        key: "",
        section: Section::Storage,
        label: "",
        prompt: "",
        explanation: "",
        form: Form::Text,
        preset: Preset::Nothing,
        when: When { words: "", holds: |_| true },
        choices: |_| Vec::new(),
        check: |_, text| Ok(text.to_owned()),
        if_empty: None,
        is_quiet: false,
        is_of_host: false,
        look: None,
    };

    /// Whether its answer is a password.
    pub fn is_secret(&self) -> bool {
        self.form == Form::Secret
    }

    /// What is proposed now.
    pub fn proposal(&self, known: &Known<'_>) -> Option<String> {
        match self.preset {
            Preset::Nothing => None,
            Preset::Fixed(text) => Some(text.to_owned()),
            Preset::From(_, find) => find(known),
        }
    }

    /// An answer in its normal form.
    ///
    /// # Errors
    /// What is wrong with it, naming the value unless it is secret, and what it must be.
    pub fn accept(&self, known: &Known<'_>, text: &str) -> Result<String, String> {
        let text = if self.is_secret() { text } else { text.trim() };
        if text.is_empty() {
            return match self.if_empty {
                // An empty answer may be wrong beside others.
                Some(_) => (self.check)(known, ""),
                None => Err("an answer is needed".to_owned()),
            };
        }
        let text = self.form.read(text)?;
        let choices = (self.choices)(known);
        let text = match text.parse::<usize>() {
            // Long names may be chosen by their place in the list.
            Ok(number) if (1..=choices.len()).contains(&number) => choices[number - 1].value.clone(),
            _ => text,
        };
        if !choices.is_empty() && !choices.iter().any(|choice| choice.value == text) {
            let all: Vec<_> = choices.iter().map(|choice| choice.value.as_str()).collect();
            return Err(format!("{text:?} must be one of: {}", all.join(", ")));
        }
        (self.check)(known, &text)
    }

    /// An answer in its normal form as it stands in answer files.
    pub fn value(&self, text: &str) -> Value {
        match self.form {
            Form::Integer(..) => text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Integer),
            Form::Bool => Value::Bool(text == YES),
            Form::Lines if text.contains('\n') => Value::Lines(text.lines().map(str::to_owned).collect()),
            Form::Secret => Value::Secret(Secret::new(text)),
            Form::Word(_) | Form::Text | Form::Lines => Value::Text(text.to_owned()),
        }
    }
}

/// The normal form of a yes.
pub const YES: &str = "yes";
/// The normal form of a no.
pub const NO: &str = "no";

impl Form {
    fn read(self, text: &str) -> Result<String, String> {
        match self {
            Self::Word(words) => {
                let lower = text.to_ascii_lowercase();
                if words.contains(&lower.as_str()) {
                    return Ok(lower);
                }
                Err(format!("{text:?} must be one of: {}", words.join(", ")))
            }
            Self::Integer(least, most) => match text.parse::<u64>() {
                Ok(number) if (least..=most).contains(&number) => Ok(number.to_string()),
                _ => Err(format!("{text:?} must be a whole number from {least} to {most}")),
            },
            Self::Bool => match ha_config::text::parse_bool(text) {
                Some(true) => Ok(YES.to_owned()),
                Some(false) => Ok(NO.to_owned()),
                None => Err(format!("{text:?} must be yes or no")),
            },
            Self::Text => one_line(text),
            Self::Lines => Ok(text.to_owned()),
            Self::Secret => one_line(text).map_err(|_| "it has a control character".to_owned()),
        }
    }
}

fn one_line(text: &str) -> Result<String, String> {
    if text.chars().any(char::is_control) {
        return Err(format!("{text:?} must be one line without control characters"));
    }
    Ok(text.to_owned())
}

/// All questions, in the order in which they are asked.
pub fn all() -> impl Iterator<Item = &'static Question> {
    [storage::QUESTIONS, network::QUESTIONS, vm::QUESTIONS, engine::QUESTIONS].into_iter().flatten()
}

/// The question with this key.
pub fn find(key: &str) -> Option<&'static Question> {
    all().find(|question| question.key == key)
}
