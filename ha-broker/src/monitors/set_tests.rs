use std::path::PathBuf;
use std::time::Duration;

use engine_vm::{VmActivity, VmEvent};
use ha_config::{HaToml, HostedEngineConf};
use tokio::time;

use super::*;
use crate::monitors::PageOptions;
use crate::monitors::testing::{FakeVm, TokioClock, status_of};
use crate::spawner::HostSpawner;

fn set(vm: Arc<FakeVm>) -> MonitorSet {
    let surroundings = Surroundings {
        vdsm: None,
        vm,
        clock: TokioClock::new(),
        // The discard port of this machine: nobody answers, at once.
        liveliness: PageOptions {
            urls: vec!["http://127.0.0.1:9/ovirt-engine/services/health".to_owned()],
            expected: "DB Up!".to_owned(),
            timeout: Duration::from_secs(5),
            ca: None,
        },
        storage_file: PathBuf::from("/nonexistent/dom_md/metadata"),
        default_bridge: "ovirtmgmt".to_owned(),
        resolv_conf: PathBuf::from("/etc/resolv.conf"),
    };
    MonitorSet::new(surroundings, Arc::new(HostSpawner))
}

fn options(given: &[(&str, &str)]) -> MonitorOptions {
    given.iter().map(|(key, value)| ((*key).to_owned(), Some((*value).to_owned()))).collect()
}

#[tokio::test]
async fn unknown_types_and_ids_are_answered_with_what_there_is() {
    let set = set(FakeVm::new(status_of(VmActivity::Down)));
    let error = set.start("cpu\n", MonitorOptions::new()).unwrap_err().to_string();
    assert_eq!(
        error,
        "there is no monitor type 'cpu\\n'; known are cpu-load, cpu-load-no-engine, engine-health, mem-free, \
         mem-load, mgmt-bridge, network, ping, storage-domain"
    );
    assert_eq!(set.status("ping").unwrap_err().to_string(), "no monitor 'ping' is running; running are none");
    set.start("mem-free", MonitorOptions::new()).unwrap();
    let error = set.stop("ping").unwrap_err().to_string();
    assert_eq!(error, "no monitor 'ping' is running; running are mem-free");
}

#[tokio::test(start_paused = true)]
async fn a_type_is_its_own_id_and_a_stopped_one_is_gone() {
    let set = set(FakeVm::new(status_of(VmActivity::Down)));
    let recorded = options(&[("address", "0"), ("use_ssl", "true")]);
    assert_eq!(set.start("mem-free", recorded).unwrap(), "mem-free");
    assert_eq!(set.status("mem-free").unwrap(), None, "nothing is said before the first look");
    time::sleep(Duration::from_secs(1)).await;
    assert!(set.status("mem-free").unwrap().unwrap().parse::<u64>().unwrap() > 0);
    let row = &set.rows()["mem-free"];
    assert_eq!((row.age_secs, &row.error), (Some(1), &None));
    set.stop("mem-free").unwrap();
    assert!(set.status("mem-free").is_err());
    assert!(set.rows().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_same_options_go_on_and_others_start_anew() {
    let set = set(FakeVm::new(status_of(VmActivity::Down)));
    let none = options(&[("network_test", "none")]);
    set.start("network", none.clone()).unwrap();
    assert_eq!(set.rows()["network"].age_secs, None);
    assert_eq!(set.status("network").unwrap().unwrap(), "1.0", "assumed before the first result");
    time::sleep(Duration::from_secs(3)).await;
    assert_eq!(set.rows()["network"].age_secs, Some(1));
    set.start("network", none).unwrap();
    assert_eq!(set.rows()["network"].age_secs, Some(1), "the same one still");
    // Wrong options change nothing.
    assert!(set.start("network", options(&[("network_test", "x")])).is_err());
    assert_eq!(set.rows()["network"].age_secs, Some(1));
    set.start("network", options(&[("network_test", "none"), ("count", "1")])).unwrap();
    assert_eq!(set.rows()["network"].age_secs, None, "a new one");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_engines_health_is_told_and_a_repetition_is_not() {
    let vm = FakeVm::new(status_of(VmActivity::Down));
    let set = set(vm.clone());
    let mut changes = set.engine_health_changes();
    let wake = WakeCounter::default();
    set.wake_agents(wake.clone());
    set.start("engine-health", MonitorOptions::new()).unwrap();
    changes.changed().await.unwrap();
    let value = set.status("engine-health").unwrap().unwrap();
    assert_eq!(
        value,
        r#"{"vm": "down", "health": "bad", "detail": "unknown", "reason": "vm not running on this host"}"#
    );
    assert!(time::timeout(Duration::from_secs(35), changes.changed()).await.is_err(), "nothing new");

    // An event is looked at at once, not at the next interval.
    let begun = time::Instant::now();
    vm.set(status_of(VmActivity::Paused));
    vm.tell(VmEvent::IoErrorPause);
    changes.changed().await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(set.status("engine-health").unwrap().unwrap().contains(r#""detail": "Paused""#));
    assert_eq!(wake.wait(1, Duration::from_secs(1)).await, 2, "agents are woken with it");
}

#[tokio::test(start_paused = true)]
async fn a_chattering_hypervisor_is_looked_at_four_times_a_second() {
    let vm = FakeVm::new(status_of(VmActivity::Down));
    let set = set(vm.clone());
    set.start("engine-health", MonitorOptions::new()).unwrap();
    for _ in 0..200 {
        time::sleep(Duration::from_millis(10)).await;
        vm.tell(VmEvent::Changed(VmActivity::Down));
    }
    // Two seconds: the first look, and one each quarter of a second.
    assert!((8..=9).contains(&vm.looks()), "{} looks", vm.looks());
}

#[tokio::test]
async fn a_configured_hosts_files_say_what_to_look_at() {
    let paths = ha_config::Paths::new("/root-of-test");
    let text = "fqdn=engine.test\nbridge=br7\nstorage=nas:/he\nsdUUID=ce880525-a44b-4248-8b63-d9e11b2f123a\n\
                domainType=nfs\nca_cert=/etc/pki/vdsm/libvirt-spice/ca-cert.pem\n";
    let conf = HostedEngineConf::parse(&paths, text);
    let vm = FakeVm::new(status_of(VmActivity::Down));
    let found = Surroundings::of_host(&conf, &HaToml::default(), vm, None, TokioClock::new()).unwrap();
    assert_eq!(found.liveliness.urls[0], "http://engine.test/ovirt-engine/services/health");
    assert_eq!(found.liveliness.expected, "DB Up!Welcome to Health Status!");
    let ca = "/root-of-test/etc/pki/vdsm/libvirt-spice/ca-cert.pem";
    assert_eq!(found.liveliness.ca, Some(PathBuf::from(ca)));
    assert!(found.storage_file.ends_with("ce880525-a44b-4248-8b63-d9e11b2f123a/dom_md/ids"));
    assert_eq!(found.default_bridge, "br7");
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_does_not_hold_up_another() {
    let vm = FakeVm::new(status_of(VmActivity::Down));
    vm.hang();
    let set = set(vm);
    set.start("engine-health", MonitorOptions::new()).unwrap();
    set.start("mem-load", MonitorOptions::new()).unwrap();
    time::sleep(Duration::from_secs(9)).await;
    assert_eq!(set.status("engine-health").unwrap(), None);
    assert!(set.status("mem-load").unwrap().is_some());
    time::sleep(Duration::from_secs(2)).await;
    assert!(set.status("engine-health").unwrap().unwrap().contains(r#""vm": "unknown""#));
    assert!(set.rows()["engine-health"].error.as_ref().unwrap().contains("no answer within 10 s"));
}
