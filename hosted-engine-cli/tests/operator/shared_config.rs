//! `--get-shared-config` and `--set-shared-config`: found as existing scripts find them, changed without losing what
//! others changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use ha_config::conf_archive::{self, RECORD};
use ha_config::shared_file::SharedFile;
use ha_config::{ConfigKind, HostedEngineConf, Paths};
use hosted_engine_cli::shared_config::{Given, get, set};
use hosted_engine_cli::terminal::{Exit, Record, Terminal};
use tempfile::TempDir;

const LOCAL: &str = "# of this host\nfqdn=e.example\nhost_id=2\nvmid=v\ngateway=192.0.2.1\ndomainType=nfs\nstorage=nas:/he\n\
    sdUUID=s\nconf_image_UUID=i\nconf_volume_UUID=v\n";
const SHARED: &str = "# of all hosts\nfqdn=e.example\ngateway=192.0.2.1\npassword=hunter2\nonly_shared=1\n";
const BROKER: &str =
    "[email]\n# the relay\nsmtp-server = localhost\n\n[notify]\nstate_transition = maintenance\n";

struct Host {
    conf: HostedEngineConf,
    volume: PathBuf,
    _root: TempDir,
}

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        fs::create_dir_all(paths.hosted_engine_conf_dir()).unwrap();
        fs::create_dir_all(paths.state_dir()).unwrap();
        fs::write(paths.hosted_engine_conf(), LOCAL).unwrap();
        let conf = HostedEngineConf::load(&paths).unwrap();
        let volume = conf.conf_volume_path().unwrap().unwrap();
        fs::create_dir_all(volume.parent().unwrap()).unwrap();
        let host = Self { conf, volume, _root: root };
        host.store(SHARED);
        host
    }

    fn store(&self, hosted_engine_conf: &str) {
        let files = [
            ("version", "2.5.1"),
            ("fhanswers.conf", "[environment:default]\n"),
            ("hosted-engine.conf", hosted_engine_conf),
            ("broker.conf", BROKER),
            ("vm.conf", "vmId=x\n"),
        ]
        .map(|(name, text)| (name, text.as_bytes()));
        let mut bytes = conf_archive::write(&files, 0).unwrap();
        bytes.resize(4 * RECORD, 0);
        fs::write(&self.volume, bytes).unwrap();
    }

    fn member(&self, name: &str) -> String {
        let bytes = fs::read(&self.volume).unwrap();
        String::from_utf8(conf_archive::read(&bytes).unwrap().remove(name).unwrap()).unwrap()
    }

    fn get(&self, key: &str, kind: Option<ConfigKind>) -> (Exit, Record) {
        let mut terminal = Terminal::recording();
        let exit = get(&self.conf, key, kind, false, &mut terminal).unwrap();
        (exit, terminal.recorded())
    }

    async fn set(&self, key: &str, value: &str, kind: Option<ConfigKind>) -> (anyhow::Result<Exit>, Record) {
        let mut terminal = Terminal::recording();
        let exit = set(&self.conf, key, Given::Argument(value.to_owned()), kind, &mut terminal).await;
        (exit, terminal.recorded())
    }

    fn backups(&self) -> Vec<PathBuf> {
        let found = fs::read_dir(self.conf.paths().backup_dir()).into_iter().flatten();
        found.map(|entry| entry.unwrap().path()).collect()
    }
}

#[test]
fn a_key_is_shown_as_scripts_know_it() {
    let host = Host::new();
    for (key, kind, line) in [
        ("host_id", None, "\nhost_id : 2, type : he_local\n\n"),
        ("only_shared", None, "\nonly_shared : 1, type : he_shared\n\n"),
        ("gateway", Some(ConfigKind::HeShared), "\ngateway : 192.0.2.1, type : he_shared\n\n"),
        ("network_test", Some(ConfigKind::HeLocal), "\nnetwork_test : None, type : he_local\n\n"),
        ("email.smtp-server", None, "\nemail.smtp-server : localhost, type : broker\n\n"),
        ("local_maintenance", None, "\nlocal_maintenance : None, type : ha\n\n"),
    ] {
        let (exit, said) = host.get(key, kind);
        assert_eq!((exit, said.out.as_str(), said.err.as_str()), (Exit::OK, line, ""), "{key}");
    }
    let paths = host.conf.paths();
    assert_eq!(fs::read_to_string(paths.cached_hosted_engine_conf()).unwrap(), SHARED);
    assert_eq!(fs::read_to_string(paths.cached_broker_conf()).unwrap(), BROKER);
}

#[test]
fn unknown_and_doubled_keys_are_told() {
    let host = Host::new();
    let (exit, said) = host.get("gatewya", None);
    assert_eq!((exit, said.out.as_str()), (Exit::FAILED, ""));
    assert!(said.err.starts_with("Invalid configuration key gatewya; is gateway meant?\n"), "{said:?}");
    for line in ["\nhe_local : conf_image_UUID,", "\nbroker : email.destination-emails,", "\nha : local_"] {
        assert!(said.err.contains(line), "{said:?}");
    }
    let (exit, said) = host.get("gateway", None);
    assert_eq!(exit, Exit::FAILED);
    assert!(
        said.err.contains("Duplicate key gateway") && said.err.contains("he_local, he_shared"),
        "{said:?}"
    );
    assert!(hosted_engine_cli::shared_config::kind("vm").unwrap_err().contains("in the engine only"));
}

#[tokio::test]
async fn passwords_are_shown_only_when_asked_and_never_taken_from_arguments() {
    let host = Host::new();
    assert_eq!(host.get("password", None).1.out, "\npassword : ********, type : he_shared\n\n");
    let mut terminal = Terminal::recording();
    get(&host.conf, "password", None, true, &mut terminal).unwrap();
    assert!(terminal.recorded().out.contains("hunter2"));
    let (exit, said) = host.set("password", "s3cret", None).await;
    assert_eq!(exit.unwrap(), Exit::FAILED);
    assert!(said.err.contains("is refused") && !said.err.contains("s3cret"), "{said:?}");
    assert_eq!(host.member("hosted-engine.conf"), SHARED);
}

#[tokio::test(start_paused = true)]
async fn a_shared_key_is_changed_on_storage_and_in_the_copy_only() {
    let host = Host::new();
    let (exit, said) = host.set("gateway", "192.0.2.9", Some(ConfigKind::HeShared)).await;
    assert_eq!((exit.unwrap(), said), (Exit::OK, Record::default()));
    let wanted = SHARED.replace("192.0.2.1", "192.0.2.9");
    assert_eq!(host.member("hosted-engine.conf"), wanted);
    assert_eq!(host.member("broker.conf"), BROKER);
    let paths = host.conf.paths();
    assert_eq!(fs::read_to_string(paths.cached_hosted_engine_conf()).unwrap(), wanted);
    assert_eq!(fs::read_to_string(paths.hosted_engine_conf()).unwrap(), LOCAL);
    let [backup] = host.backups().try_into().unwrap();
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    let kept = conf_archive::read(&fs::read(&backup).unwrap()).unwrap();
    assert_eq!(kept["hosted-engine.conf"], SHARED.as_bytes());

    let (exit, _) = host.set("email.smtp-server", "relay.example", None).await;
    assert_eq!(exit.unwrap(), Exit::OK);
    assert_eq!(host.member("broker.conf"), BROKER.replace("localhost", "relay.example"));
    let (exit, _) = host.set("email.smtp-server", "relay.example", None).await;
    assert_eq!((exit.unwrap(), host.backups().len()), (Exit::OK, 2), "nothing to do, nothing kept");
}

#[tokio::test]
async fn a_local_key_is_changed_on_this_host_only() {
    let host = Host::new();
    let before = fs::read(&host.volume).unwrap();
    let (exit, _) = host.set("gateway", "2001:db8::1", Some(ConfigKind::HeLocal)).await;
    assert_eq!(exit.unwrap(), Exit::OK);
    let text = fs::read_to_string(host.conf.paths().hosted_engine_conf()).unwrap();
    assert_eq!(text, LOCAL.replace("192.0.2.1", "2001:db8::1"));
    let (exit, _) = host.set("local_maintenance", "yes", None).await;
    assert_eq!(exit.unwrap(), Exit::OK);
    assert_eq!(fs::read_to_string(host.conf.paths().ha_conf()).unwrap(), "local_maintenance=True\n");
    assert_eq!(fs::read(&host.volume).unwrap(), before);
}

#[tokio::test]
async fn unusable_values_change_nothing() {
    let host = Host::new();
    let before = fs::read(&host.volume).unwrap();
    for (key, value, kind, part) in [
        ("gateway", "no host", Some(ConfigKind::HeShared), "gateway=\"no host\""),
        ("host_id", "7777", None, "from 1 to 2000"),
        ("email.smtp-port", "mail", None, "smtp-port=\"mail\""),
        ("notify.state_transition", "(", None, "regular expression"),
        ("nobodys", "1", None, "Invalid configuration key nobodys"),
    ] {
        let (exit, said) = host.set(key, value, kind).await;
        let text = exit.map_or_else(|error| format!("{error:#}"), |exit| format!("{exit:?} {}", said.err));
        assert!(text.contains(part) && !text.starts_with("Exit(0)"), "{key}: {text}");
    }
    host.store(&format!("{SHARED}host_id=1\n"));
    let (exit, said) = host.set("host_id", "3", Some(ConfigKind::HeShared)).await;
    assert_eq!(exit.unwrap(), Exit::FAILED);
    assert!(said.err.contains("each host's own number"), "{said:?}");
    host.store(SHARED);
    assert_eq!(fs::read(&host.volume).unwrap(), before);
    assert!(host.backups().is_empty());
}

#[tokio::test(start_paused = true)]
async fn another_host_that_writes_over_the_change_keeps_its_own_and_loses_nothing() {
    let host = Host::new();
    let other = async {
        // Within the wait after our write, as a host that had read before it.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        host.store(&format!("{SHARED}theirs=1\n"));
    };
    let (done, ()) = tokio::join!(host.set("gateway", "192.0.2.9", Some(ConfigKind::HeShared)), other);
    assert_eq!(done.0.unwrap(), Exit::OK);
    let both = format!("{}theirs=1\n", SHARED.replace("192.0.2.1", "192.0.2.9"));
    assert_eq!(host.member("hosted-engine.conf"), both);
    assert_eq!(host.backups().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_host_at_a_time_where_storage_has_locks() {
    let host = Host::new();
    let theirs = SharedFile::open(&host.volume, true).unwrap();
    theirs.try_lock().unwrap();
    let (exit, said) = host.set("gateway", "192.0.2.9", Some(ConfigKind::HeShared)).await;
    assert!(exit.unwrap_err().to_string().contains("another host has been changing the configuration"));
    assert_eq!(said.err, "Another host changes the configuration; waiting for it\n");
    assert_eq!(host.member("hosted-engine.conf"), SHARED);
    drop(theirs);
    let (exit, _) = host.set("gateway", "192.0.2.9", Some(ConfigKind::HeShared)).await;
    assert_eq!(exit.unwrap(), Exit::OK);
}

#[tokio::test]
async fn without_storage_the_copy_is_shown_and_nothing_is_changed() {
    let host = Host::new();
    host.get("only_shared", None);
    fs::remove_file(&host.volume).unwrap();
    let (exit, said) = host.get("only_shared", None);
    assert_eq!((exit, said.out.as_str()), (Exit::OK, "\nonly_shared : 1, type : he_shared\n\n"));
    assert!(said.err.contains("this host's copy is used") && said.err.contains("images/i/v"), "{said:?}");
    let (exit, _) = host.set("only_shared", "2", None).await;
    let error = format!("{:#}", exit.unwrap_err());
    assert!(error.contains("Nothing was changed") && error.contains("images/i/v"), "{error}");
    let (exit, said) = host.get("gateway", Some(ConfigKind::HeLocal));
    assert_eq!((exit, said.err.as_str()), (Exit::OK, ""), "no need for storage");
}
