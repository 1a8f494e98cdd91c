//! broker.conf: who gets mail (`[email]`) and about what (`[notify]`).

use std::collections::BTreeMap;
use std::time::Duration;

use regex::{Regex, RegexBuilder};

use crate::atomic;
use crate::error::Result;
use crate::ini::Ini;
use crate::paths::Paths;

/// broker.conf as read.
#[derive(Debug, Clone)]
pub struct BrokerConf {
    /// The section `[email]`.
    pub email: EmailConf,
    /// The section `[notify]`: for each event the pattern that its detail must contain to be sent.
    rules: BTreeMap<String, Regex>,
    /// All keys of `[email]` as text with the defaults filled in: templates may name each of them.
    pub template_values: BTreeMap<String, String>,
}

/// How mail is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmailConf {
    /// `smtp-server`; default `localhost`.
    pub smtp_server: String,
    /// `smtp-port`, 1 to 65535; default 25.
    pub smtp_port: u16,
    /// `smtp-timeout` in seconds, more than 0 to 300; default 10.
    pub smtp_timeout: Duration,
    /// `source-email`; default `root@localhost`.
    pub source_email: String,
    /// `destination-emails`, separated by commas; default `root@localhost`.
    pub destination_emails: Vec<String>,
}

/// The keys of `[email]`.
pub(crate) const EMAIL_KEYS: [&str; 5] =
    ["destination-emails", "smtp-port", "smtp-server", "smtp-timeout", "source-email"];

const DEFAULTS: [(&str, &str); 5] = [
    ("smtp-server", "localhost"),
    ("smtp-port", "25"),
    ("smtp-timeout", "10"),
    ("source-email", "root@localhost"),
    ("destination-emails", "root@localhost"),
];

impl BrokerConf {
    /// Reads the copy of the cluster's file if this host has one, else the host's own; without either nothing is
    /// sent.
    pub fn load(paths: &Paths) -> Result<Self> {
        for path in [paths.cached_broker_conf(), paths.broker_conf()] {
            match atomic::read_text(&path) {
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
                Ok(text) => return Self::parse(&path, &text),
            }
        }
        Self::parse(&paths.broker_conf(), "")
    }

    /// Reads a text. `path` is for error texts.
    pub fn parse(path: &std::path::Path, text: &str) -> Result<Self> {
        let ini = Ini::parse(path, text)?;
        let mut values: BTreeMap<String, String> =
            DEFAULTS.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let (mut port, mut timeout) = (25, 10.0);
        for entry in ini.section("email") {
            match entry.key.as_str() {
                "smtp-port" => port = ini.number(entry, 1..=65535, "a TCP port from 1 to 65535")?,
                "smtp-timeout" => {
                    timeout = ini.number(entry, 0.1..=300.0, "a number of seconds from 0.1 to 300")?;
                }
                _ => {}
            }
            values.insert(entry.key.clone(), entry.value.clone());
        }
        let value = |key: &str| values.get(key).cloned().unwrap_or_default();
        let email = EmailConf {
            smtp_server: value("smtp-server"),
            smtp_port: port,
            smtp_timeout: Duration::from_secs_f64(timeout),
            source_email: value("source-email"),
            destination_emails: value("destination-emails")
                .split(',')
                .map(|address| address.trim().to_owned())
                .filter(|address| !address.is_empty())
                .collect(),
        };
        let mut rules = BTreeMap::new();
        for entry in ini.section("notify") {
            let rule =
                RegexBuilder::new(&entry.value).case_insensitive(true).size_limit(1 << 20).build().map_err(
                    |_| ini.bad_value(entry, "a regular expression, for example maintenance|start|stop"),
                )?;
            rules.insert(entry.key.clone(), rule);
        }
        Ok(Self { email, rules, template_values: values })
    }

    /// True when a rule wants this event sent: the event has a rule and its pattern is found somewhere in `detail`,
    /// upper and lower case alike.
    pub fn wants(&self, event: &str, detail: &str) -> bool {
        self.rules.get(&event.to_lowercase()).is_some_and(|rule| rule.is_match(detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn defaults_and_rules() {
        let conf = BrokerConf::parse(Path::new("b"), "").unwrap();
        assert_eq!((conf.email.smtp_port, conf.email.destination_emails.len()), (25, 1));
        assert!(!conf.wants("state_transition", "EngineUp-EngineDown"));
        let text = "[email]\ndestination-emails = a@x , b@y\nsmtp-port=2525\n[notify]\nstate_transition=maintenance|down\n";
        let conf = BrokerConf::parse(Path::new("b"), text).unwrap();
        assert_eq!(conf.email.destination_emails, ["a@x", "b@y"]);
        assert_eq!(conf.template_values["smtp-port"], "2525");
        assert!(conf.wants("state_transition", "EngineUp-EngineDown"));
        assert!(!conf.wants("state_transition", "EngineStart-EngineStarting"));
        assert!(!conf.wants("other", "down"));
    }

    #[test]
    fn wrong_values_are_named() {
        for (text, part) in [
            ("[email]\nsmtp-port=mail\n", "b:2: smtp-port=\"mail\""),
            ("[email]\nsmtp-timeout=0\n", "b:2: smtp-timeout"),
            ("[notify]\nstate_transition=(up\n", "b:2: state_transition=\"(up\""),
        ] {
            let error = BrokerConf::parse(Path::new("b"), text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_clusters_copy_wins() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        assert!(BrokerConf::load(&paths).is_ok());
        for (path, server) in [(paths.broker_conf(), "own"), (paths.cached_broker_conf(), "cluster")] {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("[email]\nsmtp-server={server}\n")).unwrap();
            assert_eq!(BrokerConf::load(&paths).unwrap().email.smtp_server, server);
        }
    }
}
