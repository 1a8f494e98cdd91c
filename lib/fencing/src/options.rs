//! What an agent is told, checked against what it says that it takes.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use ha_config::Secret;
use ha_config::ha_toml::FencingHost;
use ha_config::text::nearest;

use crate::metadata::{Kind, Metadata, Parameter};
use crate::secret_file::{SecretFileError, read_secret_file};
use crate::switch::Action;

/// Why configured options are not what an agent takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// There is no such option.
    #[error("there is no option {name:?}{}", near.as_ref().map_or_else(
        || "; the agent's options are shown by its action metadata".to_owned(),
        |near| format!("; did you mean {near}?"),
    ))]
    Unknown {
        /// Its name as configured.
        name: String,
        /// What was probably meant.
        near: Option<String>,
    },
    /// An option that the agent needs.
    #[error("the option {name} is needed and missing")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A value that the option cannot have. Only of options that hold no secret.
    #[error("the option {name} = {value:?} must be {expected}")]
    Value {
        /// Its name.
        name: String,
        /// Its value as configured.
        value: String,
        /// What it must be.
        expected: String,
    },
    /// A key of ours, for which the agent has no option.
    #[error("{key} is set, and the agent has no option for it")]
    NotTaken {
        /// The key in ha.toml.
        key: &'static str,
    },
}

/// What an agent will be told, before its secrets were read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    plain: Vec<(String, String)>,
    secret: Vec<(String, PathBuf)>,
    /// What should be written differently, in words for the operator.
    pub(crate) advice: Vec<String>,
    /// The time that the device needs between two requests.
    pub(crate) power_wait: Duration,
}

/// What an agent is told.
#[derive(Debug)]
pub(crate) struct Arguments {
    plain: Vec<(String, String)>,
    secret: Vec<(String, Secret)>,
}

impl Plan {
    /// Checks an entry's options against an agent's description of itself.
    pub(crate) fn new(entry: &FencingHost, metadata: &Metadata) -> Result<Self, OptionError> {
        let mut plain: Vec<(String, String)> = Vec::new();
        let mut secret = Vec::new();
        for (name, value) in &entry.options {
            let parameter = known(metadata, name)?;
            check_value(parameter, &value.0)?;
            plain.push((name.clone(), value.0.clone()));
        }
        if let Some(plug) = &entry.plug {
            let parameter = first_of(metadata, &["plug", "port"], "plug")?;
            check_value(parameter, &plug.0)?;
            plain.push((parameter.name.clone(), plug.0.clone()));
        }
        if let Some(path) = &entry.password_file {
            let parameter = first_of(metadata, &["password", "passwd"], "password_file")?;
            secret.push((parameter.name.clone(), path.clone()));
        }
        for (name, path) in &entry.secret_files {
            secret.push((known(metadata, name)?.name.clone(), path.clone()));
        }
        let power_wait = plain
            .iter()
            .find(|(name, _)| name == "power_wait")
            .map(|(_, value)| value.as_str())
            .or_else(|| metadata.parameter("power_wait")?.default.as_deref())
            .and_then(seconds)
            .unwrap_or_default();
        let mut this = Self { plain, secret, advice: Vec::new(), power_wait };
        if let Some(missing) = metadata.parameters.iter().find(|parameter| this.lacks(parameter, metadata)) {
            return Err(OptionError::Missing { name: missing.name.clone() });
        }
        this.advice = this.names().filter_map(|name| advice(metadata, name)).collect();
        Ok(this)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let plain = self.plain.iter().map(|(name, _)| name.as_str());
        plain.chain(self.secret.iter().map(|(name, _)| name.as_str()))
    }

    /// Whether this parameter is needed and not given, under its own name, an older or a newer one.
    fn lacks(&self, parameter: &Parameter, metadata: &Metadata) -> bool {
        let given = |wanted: &str| self.names().any(|name| name == wanted);
        // What is to be done is said by the command; a deprecated name stands for a newer one.
        let ours = matches!(parameter.name.as_str(), "action" | "option");
        parameter.required
            && !parameter.deprecated
            && parameter.default.is_none()
            && !ours
            && !given(&parameter.name)
            && !parameter.obsoletes.as_deref().is_some_and(given)
            && !newer(metadata, &parameter.name).is_some_and(given)
    }

    /// Reads the secrets.
    pub(crate) fn read_secrets(&self) -> Result<Arguments, SecretFileError> {
        let secret = self.secret.iter().map(|(name, path)| Ok((name.clone(), read_secret_file(path)?)));
        Ok(Arguments { plain: self.plain.clone(), secret: secret.collect::<Result<_, _>>()? })
    }
}

impl Arguments {
    /// None: what an agent needs to describe itself.
    pub(crate) const fn none() -> Self {
        Self { plain: Vec::new(), secret: Vec::new() }
    }

    /// The lines for the agent's standard input.
    pub(crate) fn lines(&self, action: Action) -> Secret {
        let mut lines = format!("action={action}\n");
        let secret = self.secret.iter().map(|(name, secret)| (name, secret.reveal()));
        for (name, value) in self.plain.iter().map(|(name, value)| (name, value.as_str())).chain(secret) {
            // Writing to a String cannot fail.
            let _ = writeln!(lines, "{name}={value}");
        }
        Secret::new(lines)
    }

    /// What must not be repeated.
    pub(crate) fn secrets(&self) -> Vec<&Secret> {
        self.secret.iter().map(|(_, secret)| secret).collect()
    }
}

fn known<'m>(metadata: &'m Metadata, name: &str) -> Result<&'m Parameter, OptionError> {
    metadata.parameter(name).ok_or_else(|| {
        let current = metadata.parameters.iter().filter(|parameter| !parameter.deprecated);
        let near = nearest(name, current.map(|parameter| parameter.name.as_str()));
        OptionError::Unknown { name: name.to_owned(), near: near.map(str::to_owned) }
    })
}

fn first_of<'m>(
    metadata: &'m Metadata,
    names: &[&str],
    key: &'static str,
) -> Result<&'m Parameter, OptionError> {
    names.iter().find_map(|name| metadata.parameter(name)).ok_or(OptionError::NotTaken { key })
}

/// The newer name of an option.
fn newer<'m>(metadata: &'m Metadata, name: &str) -> Option<&'m str> {
    let newer = metadata.parameters.iter().find(|parameter| parameter.obsoletes.as_deref() == Some(name));
    newer.map(|parameter| parameter.name.as_str())
}

fn advice(metadata: &Metadata, name: &str) -> Option<String> {
    metadata.parameter(name).filter(|parameter| parameter.deprecated)?;
    let instead = newer(metadata, name).map(|newer| format!("; use {newer}")).unwrap_or_default();
    Some(format!("the option {name} is deprecated{instead}"))
}

fn check_value(parameter: &Parameter, value: &str) -> Result<(), OptionError> {
    let expected = match &parameter.kind {
        Kind::Text => return Ok(()),
        Kind::Number if value.parse::<i64>().is_ok() => return Ok(()),
        Kind::Seconds if seconds(value).is_some() => return Ok(()),
        Kind::Switch
            if matches!(
                value.to_ascii_lowercase().as_str(),
                "1" | "yes" | "on" | "true" | "0" | "no" | "off" | "false"
            ) =>
        {
            return Ok(());
        }
        Kind::Choice(values) if values.is_empty() || values.iter().any(|known| known == value) => {
            return Ok(());
        }
        Kind::Number => "a whole number".to_owned(),
        Kind::Seconds => "a number of seconds".to_owned(),
        Kind::Switch => "true or false".to_owned(),
        Kind::Choice(values) => format!("one of {}", values.join(", ")),
    };
    Err(OptionError::Value { name: parameter.name.clone(), value: value.to_owned(), expected })
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.trim().parse().ok()?).ok()
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
