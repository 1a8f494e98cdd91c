use super::*;
use proptest::prelude::*;

fn parse(text: &str) -> Result<HaToml> {
    HaToml::parse(&Paths::default(), text)
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn nothing_set_is_all_defaults_and_they_are_valid() {
    assert_eq!(parse("").unwrap(), HaToml::default());
    HaToml::default().validate().unwrap();
    assert!(HaToml::default().relations().iter().all(Relation::holds));
    assert_eq!(HaToml::default().lease.dead_after(), Duration::from_secs(140));
}

#[test]
fn keys_are_read() {
    let toml = parse(
        "[vm]\nhypervisor = \"vdsm\"\n[lease]\nio_timeout = 1\n[score]\nprofile = \"founding\"\n\
         [timers]\nloop = 0.5\nstorage_deadline = 5\n[qemu]\naccel = \"tcg\"\n[vdsm]\naddress = \"[::1]:5\"\n[socket]\nwriters = [\"ovirt\", 36]\n",
    )
    .unwrap();
    assert_eq!(toml.vm.hypervisor, Hypervisor::Vdsm);
    assert_eq!(toml.lease.lost_after(), Duration::from_secs(8));
    assert_eq!(toml.score.profile, ScoreProfile::Founding);
    assert_eq!(toml.timers.loop_interval, Duration::from_millis(500));
    assert_eq!(toml.qemu.accel, Accel::Tcg);
    assert_eq!((toml.vdsm.address.host(), toml.vdsm.address.port()), ("::1", 5));
    assert_eq!(toml.socket.writers, [Writer::Name("ovirt".to_owned()), Writer::Uid(36)]);
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_name_and_the_line() {
    let text = error("[lease]\n# c\nio_timout = 5\n");
    assert!(
        text.contains("ha.toml:3: there is no key \"io_timout\" in [lease]; did you mean io_timeout?"),
        "{text}"
    );
    assert!(text.contains("\"io_timout = 5\""), "{text}");
    assert!(error("[timer]\n").contains("did you mean [timers]?"));
    assert!(error("io_timeout = 5\n").contains("io_timeout belongs into the table [lease]"));
    assert!(error("[vm]\naccel = \"x\"\n").contains("it belongs into the table [qemu]"));
    assert!(error("[metrics]\nfast = true\n").contains("no keys yet"));
    assert!(error("[zebra]\n").contains("its tables are vm, lease"));
}

#[test]
fn wrong_values_show_the_line() {
    let text = error("[vm]\nhypervisor = \"xen\"\n");
    assert!(text.contains("ha.toml:2:") && text.contains("xen") && text.contains("`qemu`"), "{text}");
    assert!(error("[timers]\nloop = \"10s\"\n").contains("a number of seconds"));
    assert!(error("[timers]\nloop = -1\n").contains("number of seconds"));
    assert!(error("[timers]\nloop = nan\n").contains("number of seconds"));
    assert!(error("vm = 3\n").contains("ha.toml:1:"));
    assert!(error("[vm\n").contains("ha.toml:1:"));
}

#[test]
fn times_must_fit_together() {
    let text = error("[timers]\nloop = 30\n");
    assert!(
        text.contains("ha.toml: timers.loop (30 s) × 3 must be at most timers.host_alive (60 s)"),
        "{text}"
    );
    assert!(error("[timers]\nremote_poll = 11\n").contains("timers.remote_poll"));
    let polled = |text| parse(text).unwrap().timers.poll();
    assert_eq!(polled(""), Duration::from_secs(2));
    assert_eq!(polled("[timers]\nloop = 1\n"), Duration::from_millis(500), "twice in a loop");
    assert!(error("[timers]\nstorage_deadline = 90\n").contains("look dead before it knows"));
    assert!(error("[timers]\nloop = 0\n").contains("from 0.1 to 60"));
    assert!(error("[lease]\nio_timeout = 0\n").contains("lease.io_timeout = 0"));
    assert!(error("[liveliness]\nurls = [\"ftp://x\"]\n").contains("ftp://x"));
    assert!(error("[qemu]\nbinary = \"\"\n").contains("qemu.binary"));
    assert!(error("[vdsm]\naddress = \"localhost\"\n").contains("ha.toml:2: \"localhost\" is not host:port"));
}

#[test]
fn the_list_of_keys_is_the_types() {
    // Every listed key is a field: a value of a wrong type is complained about, but not as an unknown field.
    for (table, names) in keys::KNOWN {
        for name in *names {
            let text = format!("[{table}]\n{name} = {{ x = [1979-05-27] }}\n");
            let error = toml::from_str::<HaToml>(&text).unwrap_err().to_string();
            assert!(!error.contains("unknown field"), "{table}.{name}: {error}");
        }
        // Every field is listed: the type itself says which it has.
        let error = toml::from_str::<HaToml>(&format!("[{table}]\n\"?\" = 1\n")).unwrap_err().to_string();
        let fields = error.lines().last().unwrap().matches('`').count() / 2 - 1;
        assert_eq!(fields, names.len(), "{table}: {error}");
    }
    let error =
        toml::from_str::<HaToml>("[[fencing.host]]\nagent = \"\"\n\"?\" = 1\n").unwrap_err().to_string();
    for name in keys::FENCING_HOST {
        assert!(error.contains(&format!("`{name}`")), "{name}: {error}");
    }
    assert_eq!(
        error.lines().last().unwrap().matches('`').count() / 2 - 1,
        keys::FENCING_HOST.len(),
        "{error}"
    );
}

#[test]
fn page_addresses_carry_the_engines_name() {
    let urls = LivelinessTable::default().urls_for("e.example.com");
    assert_eq!(urls[0], "http://e.example.com/ovirt-engine/services/health");
}

proptest! {
    #[test]
    fn any_text_never_panics(text in "([\\[\\]=\"{}., a-z0-9\u{e9}-]{0,20}\n){0,6}") {
        let _ = parse(&text);
    }
}

#[test]
fn the_engines_pages_may_be_at_an_address() {
    let table = HaToml::default().liveliness;
    for (fqdn, host) in
        [("engine.example", "engine.example"), ("2001:db8::1", "[2001:db8::1]"), ("[::1]", "[::1]")]
    {
        assert_eq!(table.urls_for(fqdn)[0], format!("http://{host}/ovirt-engine/services/health"));
    }
}
