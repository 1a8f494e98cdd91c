//! agent.conf, section `[score]`: values that the operator set in place of the score profile's.
//!
//! The profiles themselves live in the agent; this is only what lies over them.

use crate::atomic;
use crate::error::Result;
use crate::ini::Ini;
use crate::paths::Paths;
use crate::text::nearest;

/// What agent.conf sets. `None` leaves the profile's value.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AgentConf {
    /// The section `[score]`.
    pub score: ScoreOverlay,
    /// Keys of `[score]` that mean nothing here, each with the nearest known one. They are passed over: the file
    /// may be shared with a newer release. They should be logged once.
    pub unknown: Vec<UnknownKey>,
}

/// A key that nobody reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKey {
    /// Line number, from 1.
    pub line: usize,
    /// The key.
    pub key: String,
    /// The known key that it most likely means.
    pub nearest: Option<&'static str>,
}

/// Values of the section `[score]`. Points are from 0 to 1 000 000; loads are shares from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ScoreOverlay {
    /// `base-score`, points.
    pub base_score: Option<u32>,
    /// `network-score-penalty`, points.
    pub network_score_penalty: Option<u32>,
    /// `not-uptodate-config-penalty`, points.
    pub not_uptodate_config_penalty: Option<u32>,
    /// `mgmt-bridge-score-penalty`, points.
    pub mgmt_bridge_score_penalty: Option<u32>,
    /// `free-memory-score-penalty`, points.
    pub free_memory_score_penalty: Option<u32>,
    /// `cpu-load-score-penalty`, points.
    pub cpu_load_score_penalty: Option<u32>,
    /// `engine-retry-score-penalty`, points for each failed start.
    pub engine_retry_score_penalty: Option<u32>,
    /// `cpu-load-penalty-min`: the load at which the penalty begins.
    pub cpu_load_penalty_min: Option<f64>,
    /// `cpu-load-penalty-max`: the load at which the penalty is full.
    pub cpu_load_penalty_max: Option<f64>,
}

const KEYS: [&str; 9] = [
    "base-score",
    "network-score-penalty",
    "not-uptodate-config-penalty",
    "mgmt-bridge-score-penalty",
    "free-memory-score-penalty",
    "cpu-load-score-penalty",
    "engine-retry-score-penalty",
    "cpu-load-penalty-min",
    "cpu-load-penalty-max",
];

impl ScoreOverlay {
    /// What is set: key and value, as they stand in the file.
    pub fn entries(&self) -> Vec<(&'static str, String)> {
        let points = |value: Option<u32>| value.map(|value| value.to_string());
        let share = |value: Option<f64>| value.map(|value| value.to_string());
        let values = [
            points(self.base_score),
            points(self.network_score_penalty),
            points(self.not_uptodate_config_penalty),
            points(self.mgmt_bridge_score_penalty),
            points(self.free_memory_score_penalty),
            points(self.cpu_load_score_penalty),
            points(self.engine_retry_score_penalty),
            share(self.cpu_load_penalty_min),
            share(self.cpu_load_penalty_max),
        ];
        KEYS.into_iter().zip(values).filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

impl AgentConf {
    /// Reads the file of this host; a missing file sets nothing.
    pub fn load(paths: &Paths) -> Result<Self> {
        match atomic::read_text(&paths.agent_conf()) {
            Err(error) if error.is_not_found() => Ok(Self::default()),
            Err(error) => Err(error),
            Ok(text) => Self::parse(paths, &text),
        }
    }

    /// Reads a text as if it were the file of this host.
    pub fn parse(paths: &Paths, text: &str) -> Result<Self> {
        let ini = Ini::parse(&paths.agent_conf(), text)?;
        let mut conf = Self::default();
        let score = &mut conf.score;
        for entry in ini.section("score") {
            let points = || ini.number(entry, 0..=1_000_000, "points, a number from 0 to 1000000").map(Some);
            let share = || ini.number(entry, 0.0..=1.0, "a share of the CPU from 0 to 1").map(Some);
            match entry.key.as_str() {
                "base-score" => score.base_score = points()?,
                "network-score-penalty" => score.network_score_penalty = points()?,
                "not-uptodate-config-penalty" => score.not_uptodate_config_penalty = points()?,
                "mgmt-bridge-score-penalty" => score.mgmt_bridge_score_penalty = points()?,
                "free-memory-score-penalty" => score.free_memory_score_penalty = points()?,
                "cpu-load-score-penalty" => score.cpu_load_score_penalty = points()?,
                "engine-retry-score-penalty" => score.engine_retry_score_penalty = points()?,
                "cpu-load-penalty-min" => score.cpu_load_penalty_min = share()?,
                "cpu-load-penalty-max" => score.cpu_load_penalty_max = share()?,
                key => conf.unknown.push(UnknownKey {
                    line: entry.line,
                    key: key.to_owned(),
                    nearest: nearest(key, KEYS),
                }),
            }
        }
        if let (Some(min), Some(max)) = (score.cpu_load_penalty_min, score.cpu_load_penalty_max)
            && min >= max
        {
            let reason = format!("cpu-load-penalty-min ({min}) must be below cpu-load-penalty-max ({max})");
            return Err(crate::error::ConfigError::Relation { path: paths.agent_conf(), reason });
        }
        Ok(conf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<AgentConf> {
        AgentConf::parse(&Paths::default(), text)
    }

    #[test]
    fn every_known_key_is_read() {
        for key in KEYS {
            let conf = parse(&format!("[score]\n{key}=1\n")).unwrap();
            assert!(conf.unknown.is_empty() && conf != AgentConf::default(), "{key}");
            assert_eq!(conf.score.entries(), [(key, "1".to_owned())]);
        }
        let conf = parse("[score]\nbase-score=2400\ncpu-load-penalty-min=0.4\n[other]\nx=1\n").unwrap();
        assert_eq!((conf.score.base_score, conf.score.cpu_load_penalty_min), (Some(2400), Some(0.4)));
    }

    #[test]
    fn wrong_values_are_named_and_unknown_keys_told() {
        let error = parse("[score]\nbase-score=high\n").unwrap_err().to_string();
        assert!(error.contains("agent.conf:2: base-score=\"high\""), "{error}");
        assert!(parse("[score]\ncpu-load-penalty-max=90\n").is_err());
        assert!(parse("[score]\ncpu-load-penalty-min=0.9\ncpu-load-penalty-max=0.5\n").is_err());
        let conf = parse("[score]\nbase_scor=1\n").unwrap();
        assert_eq!(conf.unknown[0].nearest, Some("base-score"));
    }

    #[test]
    fn a_missing_file_sets_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(AgentConf::load(&Paths::new(dir.path())).unwrap(), AgentConf::default());
    }
}
