//! Templates as Python's `str.format` writes them: `{name}`, and `{{` and `}}` for braces.

use std::collections::BTreeMap;

/// Why a template cannot be filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A name that nobody gives a value.
    #[error("the template asks for {{{name}}}, which this event does not have; it has {known}")]
    Unknown {
        /// As in the template.
        name: String,
        /// All names there are.
        known: String,
    },
    /// A brace without its partner.
    #[error("the template has a single {0:?}; write it twice to mean the character")]
    Brace(char),
}

/// Fills in `template`. Each value passes through `clean` first; the template's own text does not.
///
/// A conversion or format after the name (`{name!r}`, `{name:>10}`) is ignored: all values are texts.
pub fn render(
    template: &str,
    values: &BTreeMap<String, String>,
    clean: fn(&str) -> String,
) -> Result<String, TemplateError> {
    let mut out = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        if let Some(after) = from.strip_prefix("{{") {
            out.push('{');
            rest = after;
        } else if let Some(after) = from.strip_prefix("}}") {
            out.push('}');
            rest = after;
        } else if let Some((field, after)) = from.strip_prefix('{').and_then(|from| from.split_once('}')) {
            let name = field.split(['!', ':']).next().unwrap_or(field);
            let value = values.get(name).ok_or_else(|| TemplateError::Unknown {
                name: name.to_owned(),
                known: values.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
            })?;
            out.push_str(&clean(value));
            rest = after;
        } else {
            return Err(TemplateError::Brace(if from.starts_with('{') { '{' } else { '}' }));
        }
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &str) -> Result<String, TemplateError> {
        let values = [("a", "1"), ("smtp-port", "{a}")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        render(template, &values.into(), str::to_owned)
    }

    #[test]
    fn names_are_replaced_and_values_are_not_looked_into() {
        assert_eq!(fill("x{a}y{smtp-port}{{a}}").unwrap(), "x1y{a}{a}");
        assert_eq!(fill("{a!s} {a:>4}").unwrap(), "1 1");
        assert_eq!(fill("").unwrap(), "");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = fill("{nosuch}").unwrap_err().to_string();
        assert_eq!(
            error,
            "the template asks for {nosuch}, which this event does not have; it has a, smtp-port"
        );
        assert_eq!(fill("a{"), Err(TemplateError::Brace('{')));
        assert_eq!(fill("a}b"), Err(TemplateError::Brace('}')));
    }
}
