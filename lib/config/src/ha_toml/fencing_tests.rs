use super::super::HaToml;
use super::*;
use crate::paths::Paths;

const ENTRY: &str = "[[fencing.host]]\nhost_id = 2\nagent = \"fence_ipmilan\"\n";

fn parse(text: &str) -> crate::error::Result<HaToml> {
    HaToml::parse(&Paths::default(), text)
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn an_entry_is_read_with_its_defaults() {
    let toml = parse(
        "[[fencing.host]]\nname = \"h2\"\nagent = \"fence_apc\"\nport = 7\n\
         options = { ip = \"10.0.0.9\", username = \"he\", ipport = 23, secure = true, x = false }\n\
         password_file = \"/etc/p\"\noff_timeout = 90\n",
    )
    .unwrap();
    let fencing = &toml.fencing;
    let entry = &fencing.host[0];
    assert_eq!(entry.plug, Some(OptionText("7".to_owned())));
    let options: Vec<_> = entry.options.iter().map(|(name, value)| format!("{name}={}", value.0)).collect();
    assert_eq!(options, ["ip=10.0.0.9", "ipport=23", "secure=1", "username=he", "x=0"]);
    assert_eq!((entry.on_timeout, entry.off_timeout), (Duration::from_mins(1), Duration::from_secs(90)));
    assert_eq!(entry.status_timeout, Duration::from_secs(20));
    assert_eq!(entry.action, FencingAction::Off);
    let default = HaToml::default().fencing;
    assert_eq!((default.enabled, default.grace, default.host), (false, Duration::from_secs(30), vec![]));
}

#[test]
fn mistakes_are_named() {
    for (text, reason) in [
        ("[[fencing.host]]\nagent = \"fence_x\"\n", "with name or host_id"),
        ("[[fencing.host]]\nhost_id = 2\n", "missing field `agent`"),
        ("[[fencing.host]]\nagent = \"fence_x\"\nhost_id = 0\n", "is not a host id"),
        ("[[fencing.host]]\nagent = \"fence_x\"\nhost_id = 2\nname = \"h\"\n", "keep one of them"),
        ("[[fencing.host]]\nagent = \"../fence_x\"\nhost_id = 2\n", "agent must be a name like"),
        ("[[fencing.host]]\nagent = \"/bin/sh\"\nhost_id = 2\n", "agent must be a name like"),
    ] {
        let said = error(text);
        assert!(said.contains(reason), "{text}: {said}");
    }
    for (line, reason) in [
        ("action = \"cycle\"", "unknown variant `cycle`"),
        ("level = 0", "level = 0 must be from 1 to 9"),
        ("off_timeout = 0.5", "off_timeout = 0.5 must be from 1 to 600"),
        ("options = { action = \"on\" }", "the command says"),
        ("options = { debug_file = \"/tmp/x\" }", "would write the password"),
        ("options = { ip = [1] }", "a text, a whole number, true or false"),
        ("options = { ip = \"a\\nb\" }", "the option ip has a control character"),
        ("options = { ip = \"a \" }", "the option ip ends with white space"),
        ("options = { ip = '\"a\"' }", "the option ip stands in quotes"),
        ("plug = 1\noptions = { plug = 2 }", "plug is set twice"),
        ("plug = 1\nport = 2", "duplicate field"),
        ("password_file = \"p\"", "password_file = \"p\" must be an absolute path"),
        ("password_file = \"/p\"\nsecret_files = { passwd = \"/q\" }", "are one thing"),
        ("agents = \"x\"", "there is no key \"agents\" in [[fencing.host]]; did you mean agent?"),
        ("watchdog_timeout = 3", "it belongs into the table [lease]"),
    ] {
        let said = error(&format!("{ENTRY}{line}\n"));
        assert!(said.contains(reason), "{line}: {said}");
    }
    assert!(error(&format!("{ENTRY}level = 11\n")).contains("entry 1 of [[fencing.host]] (fence_ipmilan)"));
    assert!(error("[fencing]\ngrace = 3601\n").contains("grace = 3601 of [fencing] must be from 0 to 3600"));
    assert!(error("[fencing]\nhosts = []\n").contains("did you mean host?"));
}

#[test]
fn a_secret_in_this_file_is_refused_and_not_repeated() {
    for line in [
        "options = { ip = \"x\", password = \"hunter2\" }",
        "options = { passwd = \"hunter2\" }",
        "options = { snmp_priv_passwd = \"hunter2\" }",
        "options = { community = \"hunter2\" }",
        "password = \"hunter2\"",
        "password = \"hunter2\" oops",
        "options = { ip = \"x\" \"password\" = \"hunter2\" }",
        "options = { password = [\"hunter2\"] }",
    ] {
        let said = error(&format!("{ENTRY}{line}\n"));
        assert!(!said.contains("hunter2"), "{line}: {said}");
        assert!(said.contains("passw") || said.contains("community"), "{line}: {said}");
    }
    assert!(is_secret_option("secret_key") && is_secret_option("session_token"));
    assert!(!is_secret_option("passwd_script") && !is_secret_option("identity_file"));
    assert!(parse(&format!("{ENTRY}options = {{ password_script = \"/x\" }}\n")).is_ok());
}

#[test]
fn levels_are_in_the_order_in_which_they_are_tried() {
    let entry = |who: &str, level: &str, plug: u8| {
        format!("[[fencing.host]]\n{who}\n{level}\nagent = \"fence_x\"\nplug = {plug}\n")
    };
    let text = [
        entry("host_id = 2", "", 1),
        entry("name = \"h2\"", "level = 2", 2),
        entry("host_id = 2", "level = 1", 3),
        entry("name = \"h3\"", "level = 1", 4),
        entry("host_id = 2", "level = 2", 5),
        entry("name = \"h2\"", "", 6),
    ]
    .concat();
    let toml = parse(&text).unwrap();
    let plugs = |id: u16, name: Option<&str>| -> Vec<Vec<String>> {
        let levels = toml.fencing.levels_of(HostId::new(id).unwrap(), name);
        let plug = |entry: &FencingHost| entry.plug.as_ref().unwrap().0.clone();
        levels.iter().map(|level| level.iter().map(|entry| plug(entry)).collect()).collect()
    };
    assert_eq!(plugs(2, Some("h2")), [vec!["3"], vec!["2", "5"], vec!["1"], vec!["6"]]);
    assert_eq!(plugs(2, None), [vec!["3"], vec!["5"], vec!["1"]]);
    assert_eq!(plugs(3, Some("h3")), [["4"]]);
    assert_eq!(plugs(4, Some("h4")), Vec::<Vec<String>>::new());
}

#[test]
fn all_entries_of_a_host_have_the_same_action() {
    let second = "[[fencing.host]]\nhost_id = 2\nagent = \"fence_x\"\n";
    let said = error(&format!("{ENTRY}{second}action = \"reboot\"\n"));
    assert!(said.contains("must all have the same action"), "{said}");
    let toml = parse(&format!("{ENTRY}action = \"reboot\"\n{second}action = \"reboot\"\n")).unwrap();
    let action = |id| toml.fencing.action_of(HostId::new(id).unwrap(), None);
    assert_eq!((action(2), action(3)), (FencingAction::Reboot, FencingAction::Off));
}

#[test]
fn the_reset_through_storage_takes_little() {
    let entry = |lines: &str| format!("[[fencing.host]]\nhost_id = 2\nagent = \"sanlock\"\n{lines}\n");
    let lockspace =
        |lines: &str| parse(&entry(lines)).unwrap().fencing.host[0].storage_lockspace().map(str::to_owned);
    assert_eq!(lockspace("level = 2").as_deref(), Some("hosted-engine"));
    assert_eq!(lockspace("options = { lockspace = \"sd\" }").as_deref(), Some("sd"));
    assert_eq!(parse(ENTRY).unwrap().fencing.host[0].storage_lockspace(), None);
    for (lines, reason) in [
        ("plug = 1", "and nothing else"),
        ("options = { ip = \"x\" }", "and nothing else"),
        ("password_file = \"/x\"", "and nothing else"),
        ("action = \"reboot\"", "boots by itself"),
        ("options = { lockspace = \"\" }", "1 to 48 bytes"),
    ] {
        let said = error(&entry(lines));
        assert!(said.contains(reason), "{lines}: {said}");
    }
    let said = error("[[fencing.host]]\nname = \"h\"\nagent = \"sanlock\"\n");
    assert!(said.contains("with host_id"), "{said}");
}
