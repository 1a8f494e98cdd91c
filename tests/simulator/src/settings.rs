//! Settings of the hosts that come from elsewhere than the scenario: those of a real host.

use std::fmt::Write as _;

use ha_config::{AgentConf, ConfigError, HaToml, Paths};

/// Tables of ha.toml that mean something to a simulated host. The others say how a real one reaches its hypervisor.
const TABLES: [&str; 5] = ["lease", "score", "timers", "policy", "rules"];

/// What lies below a scenario's own settings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// Keys of ha.toml, `table.key`, with their values in TOML.
    toml: Vec<(String, String)>,
    /// agent.conf.
    pub agent: AgentConf,
}

impl Settings {
    /// Those of the host whose files lie at `paths`. A missing file sets nothing.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn of_host(paths: &Paths) -> Result<Self, ConfigError> {
        let text = match ha_config::atomic::read_text(&paths.ha_toml()) {
            Err(error) if error.is_not_found() => String::new(),
            text => text?,
        };
        HaToml::parse(paths, &text)?;
        let mut toml = HaToml::dotted(paths, &text)?;
        toml.retain(|(key, _)| {
            // Which lock manager is real there is no question here.
            key != "lease.adapter" && key.split_once('.').is_some_and(|(table, _)| TABLES.contains(&table))
        });
        Ok(Self { toml, agent: AgentConf::load(paths)? })
    }

    /// As the text of an ha.toml.
    pub fn toml(&self) -> String {
        self.text("", |_| false)
    }

    /// The lines for a scenario's head, but for keys of ha.toml that `is_written` elsewhere.
    pub fn lines(&self, is_written: impl Fn(&str) -> bool) -> String {
        self.text("set ", is_written)
    }

    fn text(&self, before: &str, is_left_out: impl Fn(&str) -> bool) -> String {
        self.toml.iter().filter(|(key, _)| !is_left_out(key)).fold(String::new(), |mut text, (key, value)| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{before}{key} = {value}");
            text
        })
    }
}
