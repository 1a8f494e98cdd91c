//! Several texts of ha.toml over each other, and a text as dotted keys: for tools that try out other settings.

use toml::{Table, Value};

use super::{HaToml, keys};
use crate::error::{ConfigError, Result};
use crate::paths::Paths;

impl HaToml {
    /// Reads texts as if they were this host's file, each over the ones before it: a key of a later text replaces the
    /// same key of an earlier one. Ranges and relations are checked of the whole.
    ///
    /// # Errors
    /// What is wrong; a line number counts in the text that has the line.
    pub fn layered(paths: &Paths, texts: &[&str]) -> Result<Self> {
        let path = paths.ha_toml();
        let mut whole = Table::new();
        for text in texts {
            keys::refuse_unknown(&path, text)?;
            // Types are checked text by text, so that the error has a line.
            let _: Self = toml::from_str(text).map_err(|error| keys::syntax(&path, text, &error))?;
            let layer: Table = toml::from_str(text).map_err(|error| keys::syntax(&path, text, &error))?;
            for (name, value) in layer {
                match (whole.get_mut(&name), value) {
                    (Some(Value::Table(below)), Value::Table(above)) => below.extend(above),
                    (_, value) => drop(whole.insert(name, value)),
                }
            }
        }
        let relation = |reason: String| ConfigError::Relation { path: path.clone(), reason };
        let timers = whole.get("timers").cloned();
        let mut this: Self =
            whole.try_into().map_err(|error: toml::de::Error| relation(error.to_string()))?;
        this.follow_profile(|key| timers.as_ref().is_some_and(|timers| timers.get(key).is_some()));
        this.validate().map_err(relation)?;
        Ok(this)
    }

    /// The keys that a text sets, as `table.key` with the value as TOML writes it, in the order of their names.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn dotted(paths: &Paths, text: &str) -> Result<Vec<(String, String)>> {
        let path = paths.ha_toml();
        keys::refuse_unknown(&path, text)?;
        let tables: Table = toml::from_str(text).map_err(|error| keys::syntax(&path, text, &error))?;
        Ok(tables
            .into_iter()
            .filter_map(|(name, table)| match table {
                Value::Table(table) => Some((name, table)),
                _ => None,
            })
            .flat_map(|(name, table)| {
                table.into_iter().map(move |(key, value)| (format!("{name}.{key}"), value.to_string()))
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_text_wins_key_by_key() {
        let below = "[lease]\nio_timeout = 5\nwatchdog_timeout = 30\n";
        let toml = HaToml::layered(&Paths::default(), &[below, "lease.io_timeout = 2\n"]).unwrap();
        assert_eq!((toml.lease.io_timeout, toml.lease.watchdog_timeout), (2, 30));
    }

    #[test]
    fn errors_name_the_line_of_their_text_and_relations_are_checked_of_the_whole() {
        let error = |texts: &[&str]| HaToml::layered(&Paths::default(), texts).unwrap_err().to_string();
        assert!(error(&["", "\n\nlease.io_timeout = \"x\"\n"]).contains(":3:"));
        assert!(error(&["lease.io_timout = 1"]).contains("did you mean io_timeout?"));
        assert!(error(&["timers.loop = 30\n", "timers.host_alive = 60\n"]).contains("host_alive"));
    }

    #[test]
    fn dotted_keys_mean_what_the_text_means() {
        let text =
            "[timers]\nloop = 2.5\n[score]\nprofile = \"founding\"\n[rules]\nsick_engine = [\"force\"]\n";
        let paths = Paths::default();
        let keys = HaToml::dotted(&paths, text).unwrap();
        let lines: Vec<String> = keys.into_iter().map(|(key, value)| format!("{key} = {value}")).collect();
        let lines = lines.join("\n");
        assert_eq!(HaToml::parse(&paths, &lines).unwrap(), HaToml::parse(&paths, text).unwrap());
        assert!(lines.contains("rules.sick_engine = [\"force\"]"), "{lines}");
    }
}
