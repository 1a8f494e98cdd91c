//! Writing answer files.

use std::fmt;

use super::{Answers, Value};
use crate::deploy::questions;

/// The text of an answer file. Passwords are named, not written.
impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("# Answers for hosted-engine --deploy --config-append=FILE\n\n[environment:default]\n")?;
        for (key, value) in self.iter() {
            if let Some(text) = value.written() {
                writeln!(f, "{key}={text}")?;
            }
        }
        let secrets: Vec<_> = questions::all()
            .filter(|question| matches!(self.get(question.key), Some(Value::Secret(_))))
            .collect();
        if secrets.is_empty() {
            return Ok(());
        }
        f.write_str(
            "\n# Passwords are not written. hosted-engine asks for them on a terminal. To deploy without one, put them\n\
             # into another answer file of mode 0600, and name it after this one with --config-append:\n",
        )?;
        secrets.iter().try_for_each(|question| writeln!(f, "#   {}=str:…", question.key))
    }
}
