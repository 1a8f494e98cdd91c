//! Why a dialogue came to no request.

use std::fmt::Write;

use crate::deploy::DeployError;
use crate::deploy::answers::AnswersError;
use crate::deploy::questions::{Choice, Form, Question, keys};

/// Why a dialogue came to no request. Nothing was made or changed.
#[derive(Debug, thiserror::Error)]
pub enum DialogueError {
    /// An answer file.
    #[error(transparent)]
    Answers(#[from] AnswersError),
    /// Answers are missing or wrong, and there is nobody to ask.
    #[error("{}", incomplete(missing, wrong))]
    Incomplete {
        /// What is missing.
        missing: Vec<Missing>,
        /// What is wrong with those that were given.
        wrong: Vec<String>,
    },
    /// The operator ended the dialogue.
    #[error("Cancelled; nothing was changed")]
    Cancelled,
    /// An answer file said no.
    #[error("{0} is no: nothing was changed")]
    Declined(&'static str),
    /// The storage is not what was said.
    #[error("{0}")]
    Storage(String),
    /// The storage could not be looked at.
    #[error(transparent)]
    Look(#[from] DeployError),
    /// The terminal.
    #[error("cannot use the terminal: {0}")]
    Terminal(#[from] std::io::Error),
    /// An answer that was accepted cannot be used: a fault in this program.
    #[error("{key}: {text:?} was accepted and cannot be used; please report this")]
    Unusable {
        /// Its key.
        key: &'static str,
        /// The answer.
        text: String,
    },
}

/// An answer that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Its key.
    pub key: &'static str,
    /// `str:…`
    pub form: String,
    /// What is asked.
    pub prompt: &'static str,
    /// What helps to answer it.
    pub explanation: &'static str,
}

impl Missing {
    /// The confirmation of the preview.
    pub(super) const CONFIRMATION: Self = Self {
        key: keys::CONFIRM,
        form: String::new(),
        prompt: "Please confirm the settings",
        explanation: "bool:True here, or --yes. --plan shows what would be done.",
    };

    pub(super) fn of(question: &Question, choices: Vec<Choice>) -> Self {
        let kind = match question.form {
            Form::Integer(least, most) => format!("int:, from {least} to {most}"),
            Form::Bool => "bool:".to_owned(),
            Form::Word(words) => format!("str:, {}", words.join(", ")),
            Form::Text | Form::Lines | Form::Secret => "str:".to_owned(),
        };
        let choices: Vec<_> = choices.into_iter().map(|choice| choice.value).collect();
        let form = if choices.is_empty() { kind } else { format!("{kind}, {}", choices.join(", ")) };
        Self { key: question.key, form, prompt: question.prompt, explanation: question.explanation }
    }
}

fn incomplete(missing: &[Missing], wrong: &[String]) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "there is no terminal to ask on, and the answer files (--config-append) do not suffice."
    );
    if !wrong.is_empty() {
        let _ = writeln!(text, "Wrong:");
        for why in wrong {
            let _ = writeln!(text, "  {why}");
        }
    }
    if !missing.is_empty() {
        let _ = writeln!(text, "Missing:");
        for Missing { key, form, prompt, explanation } in missing {
            let form = if form.is_empty() { String::new() } else { format!(" ({form})") };
            let _ = writeln!(text, "  {key}{form}\n      {prompt}. {explanation}");
        }
    }
    text.truncate(text.trim_end().len());
    text
}
