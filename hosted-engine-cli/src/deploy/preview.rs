//! The preview: all values at a glance, before anything is done.

use super::dialogue::{Asked, Asker, DialogueError};
use super::questions::Question;
use crate::setup::Report;

/// A line of the preview.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What it is.
    pub label: &'static str,
    /// Its value; asterisks for a password.
    pub value: String,
}

impl Row {
    /// An answer in its normal form.
    pub(super) fn answer(question: &Question, text: &str) -> Self {
        let value = match (text, question.if_empty) {
            ("", Some(words)) => format!("({words})"),
            // A list of keys stays a list.
            _ => text.replace('\n', ", "),
        };
        Self { label: question.label, value }
    }

    /// A password that was given. As many asterisks for each.
    pub(super) fn secret(question: &Question) -> Self {
        Self { label: question.label, value: "********".to_owned() }
    }
}

/// The values in aligned columns.
pub fn lines(rows: &[Row]) -> Vec<String> {
    let width = rows.iter().map(|row| row.label.chars().count()).max().unwrap_or(0);
    rows.iter().map(|row| format!("{:width$} : {}", row.label, row.value)).collect()
}

/// Shows the preview and has it confirmed, unless it is already. Without an operator it is reported, and only what is
/// confirmed goes on: [`super::dialogue::request`] has seen to that.
///
/// # Errors
/// [`DialogueError::Cancelled`] when the operator says no.
pub fn confirm(
    asked: &Asked,
    operator: Option<&mut dyn Asker>,
    report: &dyn Report,
) -> Result<(), DialogueError> {
    let Some(operator) = operator else {
        for line in lines(&asked.preview) {
            report.info(&line);
        }
        return if asked.is_confirmed { Ok(()) } else { Err(DialogueError::Cancelled) };
    };
    operator.section("Configuration preview");
    for line in lines(&asked.preview) {
        operator.tell(&line);
    }
    operator.tell("");
    if asked.is_confirmed {
        return Ok(());
    }
    loop {
        let text = operator.line("Please confirm installation settings (yes, no) [yes]: ")?;
        match (text.trim(), ha_config::text::parse_bool(&text)) {
            ("", _) | (_, Some(true)) => return Ok(()),
            (_, Some(false)) => return Err(DialogueError::Cancelled),
            (_, None) => operator.error("Please answer yes or no"),
        }
    }
}
