//! The files under `etc/` say what the code does.

use std::fs;
use std::path::{Path, PathBuf};

use ha_config::ha_toml::Relation;
use ha_config::{AgentConf, BrokerConf, HaToml, Paths};

fn etc(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../etc").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every line that is a commented-out setting, made a setting.
fn uncommented(text: &str) -> String {
    let setting = |line: &&str| {
        line.starts_with("#[[") || line.starts_with('#') && !line.starts_with("# ") && line.contains('=')
    };
    text.lines().map(|line| line.strip_prefix('#').filter(|_| setting(&line)).unwrap_or(line)).fold(
        String::new(),
        |mut all, line| {
            all.push_str(line);
            all.push('\n');
            all
        },
    )
}

#[test]
fn ha_toml_is_all_defaults_and_shows_them() {
    let paths = Paths::default();
    let text = etc("ha.toml");
    assert_eq!(HaToml::parse(&paths, &text).unwrap(), HaToml::default());

    let mut shown = HaToml::parse(&paths, &uncommented(&text)).unwrap();
    // These have no default that could be written down; the file shows examples.
    for example in [&mut shown.qemu.machine, &mut shown.qemu.user, &mut shown.qemu.bridge] {
        assert!(example.take().is_some());
    }
    assert!(shown.libvirt.domain.take().is_some());
    assert_eq!(shown.fencing.host.len(), 1);
    shown.fencing.host.clear();
    assert_eq!(shown, HaToml::default());
}

#[test]
fn ha_toml_names_every_key() {
    let keys =
        |text: &str| text.lines().filter(|line| line.contains(" = ") && !line.starts_with("# ")).count();
    // hypervisor; adapter, io_timeout, watchdog_timeout; profile; 12 timers; 6 of QEMU; address of VDSM; 5 of libvirt; 3 of the page; writers; 15 policies; 8 rules; 10 of a power switch.
    assert_eq!(keys(&etc("ha.toml")), 1 + 3 + 1 + 12 + 6 + 1 + 5 + 3 + 1 + 15 + 8 + 10);
}

#[test]
fn the_operators_guide_shows_every_rule_between_the_times() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/operators.md");
    let guide = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let row = |rule: &Relation| format!("| `{}` | {} |\n", rule.rule(), rule.why());
    let table = HaToml::default().relations().iter().map(row).collect::<Vec<_>>().concat();
    assert!(guide.contains(&table), "docs/operators.md must have these rows:\n{table}");
}

#[test]
fn agent_conf_sets_nothing_and_shows_every_key() {
    let paths = Paths::default();
    let text = etc("agent.conf");
    assert_eq!(AgentConf::parse(&paths, &text).unwrap(), AgentConf::default());
    let shown = AgentConf::parse(&paths, &uncommented(&text)).unwrap();
    assert!(shown.unknown.is_empty());
    assert_eq!(shown.score.base_score, Some(3400));
    assert!(!format!("{:?}", shown.score).contains("None"), "{:?}", shown.score);
}

#[test]
fn broker_conf_is_the_defaults_with_one_rule() {
    let conf = BrokerConf::parse(Path::new("broker.conf"), &etc("broker.conf")).unwrap();
    let plain = BrokerConf::parse(Path::new("broker.conf"), "").unwrap();
    assert_eq!(conf.email, plain.email);
    assert!(conf.wants("state_transition", "EngineStart-EngineStarting"));
}

#[test]
fn the_template_uses_only_what_there_is() {
    let conf = BrokerConf::parse(Path::new("broker.conf"), &etc("broker.conf")).unwrap();
    let text = etc("notifications/state_transition.txt");
    let names: Vec<_> = text.split('{').skip(1).filter_map(|part| Some(part.split_once('}')?.0)).collect();
    assert_eq!(names.len(), text.matches('{').count());
    for name in names {
        assert!(name == "detail" || name == "hostname" || conf.template_values.contains_key(name), "{name}");
    }
}
