//! What the agent's configuration files say, as the loop needs it. Reads files once; decides nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ha_config::ha_toml::{self, Hypervisor, LeaseTable, PolicyTable, PortRange, ScoreProfile};
use ha_config::{AgentConf, ConfigError, HaToml, HostedEngineConf, NetworkTest, Paths, ScoreOverlay};
use metadata_format::HostId;

use crate::core::fencing;
use crate::core::{Limits, Policy, Profile, Settings, SickEngine, Weights};

/// A storage pool uuid that means: none, as current releases write it.
const NO_POOL: &str = "00000000-0000-0000-0000-000000000000";

/// Seconds that the destination of a live migration has at least to get ready: it looks once in a loop, and starts a
/// hypervisor process.
const MIGRATION_ANSWER: u64 = 45;

/// Everything that does not change while the agent runs.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// This host's name, as the others see it.
    pub hostname: String,
    /// For the decision core.
    pub settings: Settings,
    /// Pause between two loops.
    pub interval: Duration,
    /// Longest time that starting the VM may take: reaching its lease, and the hypervisor up.
    pub start_deadline: Duration,
    /// The VM's lease, the same on all hosts. So long after its last renewal it is lost (8N): a VM whose lease nobody could
    /// vouch for since then is ended, before another host can take it.
    pub lease: LeaseTable,
    /// The monitors that the broker must run.
    pub monitors: Vec<MonitorSpec>,
    /// The configuration is on shared storage and in today's form.
    pub conf_on_shared_storage: bool,
    /// The storage domain's lockspace is left while this host is in local maintenance and the VM is away: VDSM, whose
    /// lockspace it is, could not disconnect the storage for the engine otherwise.
    pub leaves_domain_in_maintenance: bool,
    /// Automatic fencing; `None` when it is off.
    pub fencing: Option<fencing::Limits>,
    /// How this host receives the VM in a live migration.
    pub receives: Receives,
}

/// Where a host that gets ready for a live migration listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receives {
    /// At this address; by default at the management bridge's.
    pub address: Option<String>,
    /// The management bridge.
    pub bridge: String,
    /// At one of these ports.
    pub ports: PortRange,
}

/// A monitor to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonitorSpec {
    /// What its result is used for.
    pub field: Field,
    /// Its type in the broker.
    pub kind: &'static str,
    /// Its options, with the names and forms that existing agents use.
    pub options: BTreeMap<String, Option<String>>,
}

/// What a monitor's result is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "named after the fields of the local observation")]
pub enum Field {
    Network,
    Bridge,
    MemFree,
    CpuLoad,
    MemLoad,
    EngineHealth,
    StorageDomain,
}

/// Why the agent cannot work on this host.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// There is no configuration.
    #[error(
        "this host is not set up for the hosted engine: {} does not exist; run `hosted-engine --deploy` on it, \
         or disable ovirt-ha-agent here",
        .0.display()
    )]
    NotDeployed(PathBuf),
    /// There is one that says so.
    #[error(
        "this host is not set up for the hosted engine: {} has no host_id, or configured=False; \
         finish `hosted-engine --deploy`, or disable ovirt-ha-agent here",
        .0.display()
    )]
    NotConfigured(PathBuf),
    /// A file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The score's weights contradict each other.
    #[error("{}: {reason}", path.display())]
    Weights {
        /// agent.conf.
        path: PathBuf,
        /// What is wrong.
        reason: crate::core::score::WeightError,
    },
    /// The hypervisor's adapter cannot be used as configured.
    #[error(transparent)]
    Hypervisor(#[from] engine_vm::VmError),
}

/// Reads hosted-engine.conf of a configured host.
pub fn load_conf(paths: &Paths) -> Result<HostedEngineConf, SetupError> {
    let conf = match HostedEngineConf::load(paths) {
        Err(error) if error.is_not_found() => {
            return Err(SetupError::NotDeployed(paths.hosted_engine_conf()));
        }
        other => other?,
    };
    if !conf.is_configured()? {
        return Err(SetupError::NotConfigured(paths.hosted_engine_conf()));
    }
    Ok(conf)
}

impl AgentConfig {
    /// From the three files; `hostname` is what the host calls itself.
    pub fn new(
        conf: &HostedEngineConf,
        agent: &AgentConf,
        toml: &HaToml,
        hostname: String,
    ) -> Result<Self, SetupError> {
        let host_id: HostId = conf.require_host_id()?;
        let profile = match toml.score.profile {
            ScoreProfile::Founding => Profile::Founding,
            ScoreProfile::Ovirt45 => Profile::Ovirt45,
        };
        let weights = overlaid(Weights::of(profile), &agent.score);
        weights
            .validate()
            .map_err(|reason| SetupError::Weights { path: conf.paths().agent_conf(), reason })?;
        Ok(Self {
            hostname,
            settings: Settings { host_id, weights, policy: policy(toml.policy), limits: limits(toml) },
            interval: toml.timers.loop_interval,
            start_deadline: toml.timers.engine_start,
            lease: toml.lease.clone(),
            monitors: monitors(conf, profile)?,
            conf_on_shared_storage: conf.conf_volume().is_some()
                && conf.conf_image().is_some()
                && conf.sp_uuid() == Some(NO_POOL),
            leaves_domain_in_maintenance: toml.vm.hypervisor == Hypervisor::Vdsm,
            fencing: toml.fencing.enabled.then(|| fencing_limits(toml)),
            receives: Receives {
                address: toml.migration.address.clone(),
                bridge: conf.bridge()?.to_owned(),
                ports: toml.migration.ports,
            },
        })
    }
}

fn overlaid(mut weights: Weights, overlay: &ScoreOverlay) -> Weights {
    let points = |own: &mut i64, set: Option<u32>| *own = set.map_or(*own, i64::from);
    points(&mut weights.base, overlay.base_score);
    points(&mut weights.network, overlay.network_score_penalty);
    points(&mut weights.config, overlay.not_uptodate_config_penalty);
    points(&mut weights.bridge, overlay.mgmt_bridge_score_penalty);
    points(&mut weights.memory, overlay.free_memory_score_penalty);
    points(&mut weights.cpu, overlay.cpu_load_score_penalty);
    points(&mut weights.retry, overlay.engine_retry_score_penalty);
    weights.cpu_min = overlay.cpu_load_penalty_min.unwrap_or(weights.cpu_min);
    weights.cpu_max = overlay.cpu_load_penalty_max.unwrap_or(weights.cpu_max);
    weights
}

const fn policy(table: PolicyTable) -> Policy {
    Policy {
        retry_memory: table.retry_memory,
        start_waits_for_liveness: table.start_waits_for_liveness,
        lease_refusal_is_no_failure: table.lease_refusal_is_no_failure,
        local_maintenance_moves_vm: table.local_maintenance_moves_vm,
        start_needs_footing: table.start_needs_footing,
        local_restart: table.local_restart,
        debounce: table.debounce,
        cpu_never_evicts: table.cpu_never_evicts,
        ranked_start: table.ranked_start,
        storage_patience: table.storage_patience,
        paused_policy: table.paused_policy,
        blip_free_restart: table.blip_free_restart,
        health_escalation: table.health_escalation,
        stop_needs_cause: table.stop_needs_cause,
        lease_aware_start: table.lease_aware_start,
        live_migration: table.live_migration,
    }
}

/// The core counts whole seconds: a part of one counts as a whole.
fn secs(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

fn fencing_limits(toml: &HaToml) -> fencing::Limits {
    fencing::Limits { grace: secs(toml.fencing.grace), alive: secs(toml.timers.host_alive) }
}

fn limits(toml: &HaToml) -> Limits {
    let HaToml { timers, rules, migration, .. } = toml;
    Limits {
        alive: secs(timers.host_alive),
        history: secs(timers.history),
        retry_window: secs(timers.retry_clear),
        starting: secs(timers.engine_starting),
        bad_health: secs(timers.bad_health),
        stop: secs(timers.engine_stop),
        away: secs(timers.maybe_away),
        unexpected_down: secs(timers.unexpectedly_down),
        restart_budget: rules.restart_budget,
        restart_window: secs(rules.restart_window),
        restart_pause: secs(rules.restart_pause),
        debounce_bad: rules.debounce_bad,
        debounce_samples: rules.debounce_samples,
        stagger: secs(rules.start_stagger),
        engine_resets: rules.engine_resets,
        sick_engine: match rules.sick_engine {
            ha_toml::SickEngine::ShutdownThenForce => SickEngine::ShutdownThenForce,
            ha_toml::SickEngine::Force => SickEngine::Force,
            ha_toml::SickEngine::Never => SickEngine::LeftAlone,
        },
        migration: secs(migration.timeout),
        migration_answer: MIGRATION_ANSWER.max(secs(timers.loop_interval * 3)),
        arrival_grace: secs(timers.loop_interval * 2),
        ..Limits::default()
    }
}

fn monitors(conf: &HostedEngineConf, profile: Profile) -> Result<Vec<MonitorSpec>, ConfigError> {
    let (network_test, address, port) = match conf.network_test()? {
        NetworkTest::Ping => ("ping", None, None),
        NetworkTest::Dns => ("dns", None, None),
        NetworkTest::Tcp { address, port } => ("tcp", Some(address), Some(port.to_string())),
        NetworkTest::None => ("none", None, None),
    };
    let text = |value: &str| Some(value.to_owned());
    let hypervisor = || {
        let ssl = conf.file().get("vdsm_use_ssl").unwrap_or("true");
        vec![("address", text("0")), ("use_ssl", text(ssl))]
    };
    let with = |mut options: Vec<(&'static str, Option<String>)>, name, value| {
        options.push((name, value));
        options
    };
    let spec = |field, kind, options: Vec<(&str, Option<String>)>| MonitorSpec {
        field,
        kind,
        options: options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    };
    let vm = || conf.vmid().map(text);
    let network = vec![
        ("addr", conf.gateway().map(ToOwned::to_owned)),
        ("network_test", text(network_test)),
        ("tcp_t_address", address),
        ("tcp_t_port", port),
    ];
    let mut specs = vec![
        spec(Field::Network, "network", network),
        spec(Field::Bridge, "mgmt-bridge", with(hypervisor(), "bridge_name", text(conf.bridge()?))),
        spec(Field::MemFree, "mem-free", hypervisor()),
        spec(Field::CpuLoad, "cpu-load-no-engine", with(hypervisor(), "vm_uuid", vm()?)),
        spec(Field::EngineHealth, "engine-health", with(hypervisor(), "vm_uuid", vm()?)),
        spec(Field::StorageDomain, "storage-domain", vec![("sd_uuid", text(conf.sd_uuid()?))]),
    ];
    if profile == Profile::Founding {
        specs.push(spec(Field::MemLoad, "mem-load", hypervisor()));
    }
    Ok(specs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = "fqdn=engine.example\nhost_id=2\nvmid=VM\nvm_disk_id=D\nvm_disk_vol_id=V\nstorage=s:/p\n\
        domainType=nfs\nsdUUID=SD\ngateway=192.0.2.1\nbridge=ovirtmgmt\nvdsm_use_ssl=true\n";

    fn config(conf: &str, agent: &str, toml: &str) -> Result<AgentConfig, SetupError> {
        let paths = Paths::default();
        let conf = HostedEngineConf::parse(&paths, conf);
        let agent = AgentConf::parse(&paths, agent)?;
        AgentConfig::new(&conf, &agent, &HaToml::parse(&paths, toml)?, "h2".to_owned())
    }

    #[test]
    fn monitors_are_started_as_existing_agents_start_them() {
        let config = config(CONF, "", "").expect("a good configuration");
        let wanted = [
            (
                "network",
                vec![
                    ("addr", Some("192.0.2.1")),
                    ("network_test", Some("ping")),
                    ("tcp_t_address", None),
                    ("tcp_t_port", None),
                ],
            ),
            (
                "mgmt-bridge",
                vec![("address", Some("0")), ("bridge_name", Some("ovirtmgmt")), ("use_ssl", Some("true"))],
            ),
            ("mem-free", vec![("address", Some("0")), ("use_ssl", Some("true"))]),
            (
                "cpu-load-no-engine",
                vec![("address", Some("0")), ("use_ssl", Some("true")), ("vm_uuid", Some("VM"))],
            ),
            (
                "engine-health",
                vec![("address", Some("0")), ("use_ssl", Some("true")), ("vm_uuid", Some("VM"))],
            ),
            ("storage-domain", vec![("sd_uuid", Some("SD"))]),
        ];
        let found: Vec<_> = config
            .monitors
            .iter()
            .map(|spec| {
                let options = spec.options.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
                (spec.kind, options.collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn the_profile_and_its_overrides_reach_the_weights() {
        let settings = |agent, toml| config(CONF, agent, toml).expect("good").settings.weights;
        assert_eq!(settings("", ""), Weights::of(Profile::Ovirt45));
        let founding = settings("[score]\nbase-score=2000\n", "[score]\nprofile = \"founding\"\n");
        assert_eq!(founding, Weights { base: 2000, ..Weights::of(Profile::Founding) });
        assert!(config(CONF, "[score]\ncpu-load-penalty-min=0.95\n", "").is_err());
    }

    #[test]
    fn the_switches_are_on_unless_ha_toml_turns_them_off() {
        let policy = |toml| config(CONF, "", toml).expect("good").settings.policy;
        assert_eq!(policy(""), Policy::default());
        let off = "[policy]\nretry_memory = false\nstart_waits_for_liveness = false\n\
            lease_refusal_is_no_failure = false\n\
            local_maintenance_moves_vm = false\nstart_needs_footing = false\n\
            local_restart = false\n\
            debounce = false\n\
            cpu_never_evicts = false\n\
            ranked_start = false\n\
            storage_patience = false\n\
            paused_policy = false\n\
            blip_free_restart = false\n\
            health_escalation = false\n\
            stop_needs_cause = false\nlease_aware_start = false\nlive_migration = false\n";
        assert_eq!(policy(off), Policy::plain());
    }

    #[test]
    fn the_figures_of_the_rules_reach_the_limits() {
        let limits = |toml| config(CONF, "", toml).expect("good").settings.limits;
        assert_eq!(limits(""), Limits::default());
        let toml = "[rules]\nrestart_budget = 1\nrestart_window = 99.5\nrestart_pause = 7\ndebounce_bad = 2\n\
            debounce_samples = 5\nstart_stagger = 3\nengine_resets = 9\nsick_engine = []\n";
        let wanted = Limits {
            restart_budget: 1,
            restart_window: 100,
            restart_pause: 7,
            debounce_bad: 2,
            debounce_samples: 5,
            stagger: 3,
            engine_resets: 9,
            sick_engine: SickEngine::LeftAlone,
            ..Limits::default()
        };
        assert_eq!(limits(toml), wanted);
        assert_eq!(limits("[rules]\nsick_engine = [\"force\"]\n").sick_engine, SickEngine::Force);
    }

    #[test]
    fn fencing_is_off_unless_it_is_asked_for() {
        let fencing = |toml| config(CONF, "", toml).expect("good").fencing;
        assert_eq!(fencing(""), None);
        assert_eq!(
            fencing("[fencing]\nenabled = true\ngrace = 4.5\n"),
            Some(fencing::Limits { grace: 5, alive: 60 })
        );
    }

    #[test]
    fn fractions_of_a_second_count_as_whole_ones() {
        let toml = "[timers]\nhost_alive = 30.5\n";
        assert_eq!(config(CONF, "", toml).expect("good").settings.limits.alive, 31);
    }

    #[test]
    fn a_host_that_is_not_deployed_is_told_what_to_do() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = Paths::new(dir.path());
        let error = load_conf(&paths).expect_err("no file").to_string();
        assert!(error.contains("hosted-engine.conf does not exist"), "{error}");
        std::fs::create_dir_all(paths.hosted_engine_conf_dir()).expect("made");
        std::fs::write(paths.hosted_engine_conf(), "fqdn=x\n").expect("written");
        let error = load_conf(&paths).expect_err("not configured").to_string();
        assert!(error.contains("has no host_id"), "{error}");
    }
}
