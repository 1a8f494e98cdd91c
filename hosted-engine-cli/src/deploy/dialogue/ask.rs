//! Talking with the operator. A port: tests answer from a script.

use std::io::{self, IsTerminal, Write};

use ha_config::Secret;

use super::DialogueError;
use crate::hidden_input;

/// Where the words begin on the line: below those after `[ INFO  ] `.
const INDENT: &str = "          ";
/// Where explanations are wrapped, in characters.
const WIDTH: usize = 70;

/// Somebody who can be asked.
pub trait Asker {
    /// A part of the dialogue begins.
    fn section(&mut self, title: &str);

    /// A line to read; long text is wrapped.
    fn tell(&mut self, text: &str);

    /// Something is wrong with an answer.
    fn error(&mut self, text: &str);

    /// Asks for a line.
    ///
    /// # Errors
    /// [`DialogueError::Cancelled`], or of the terminal.
    fn line(&mut self, prompt: &str) -> Result<String, DialogueError>;

    /// Asks for a line that is not shown.
    ///
    /// # Errors
    /// As [`Asker::line`].
    fn hidden(&mut self, prompt: &str) -> Result<Secret, DialogueError>;
}

/// The operator at the terminal that standard input and output are.
#[derive(Debug)]
pub struct AtTerminal(());

impl AtTerminal {
    /// `None` when one of them is no terminal.
    pub fn open() -> Option<Self> {
        (io::stdin().is_terminal() && io::stdout().is_terminal()).then_some(Self(()))
    }
}

impl Asker for AtTerminal {
    fn section(&mut self, title: &str) {
        println!("{INDENT}\n{INDENT}--== {} ==--\n{INDENT}", title.to_uppercase());
    }

    fn tell(&mut self, text: &str) {
        for line in wrapped(text, WIDTH) {
            println!("{INDENT}{line}");
        }
    }

    fn error(&mut self, text: &str) {
        println!("[ ERROR ] {text}");
    }

    fn line(&mut self, prompt: &str) -> Result<String, DialogueError> {
        print!("{INDENT}{prompt}");
        io::stdout().flush()?;
        let mut line = String::new();
        if io::stdin().read_line(&mut line)? == 0 {
            println!();
            return Err(DialogueError::Cancelled);
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    fn hidden(&mut self, prompt: &str) -> Result<Secret, DialogueError> {
        hidden_input::line(&format!("{INDENT}{prompt}"))?.ok_or(DialogueError::Cancelled)
    }
}

/// Lines of at most `width` characters, where the words allow it. A line with columns stays as it is.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    if text.contains("  ") {
        return vec![text.to_owned()];
    }
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        if lines[last].is_empty() {
            lines[last].push_str(word);
        } else if lines[last].chars().count() + 1 + word.chars().count() <= width {
            lines[last].push(' ');
            lines[last].push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explanations_are_wrapped_and_columns_are_not() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("averyverylongword b", 7), ["averyverylongword", "b"]);
        assert_eq!(wrapped("Storage type   : nfs", 7), ["Storage type   : nfs"]);
        assert_eq!(wrapped("", 7), [""]);
    }
}
