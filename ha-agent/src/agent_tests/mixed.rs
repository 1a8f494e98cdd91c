//! The loop beside hosts of other releases: ones that score otherwise, and ones whose blocks are newer.

use metadata_format::{HostRecord, Score};

use super::*;

/// Host 2 writes this from now on, every 10 s, for so long.
async fn beside(rig: &Rig, secs: u64, score: u32, notes: &[(&str, &str)]) {
    for _ in 0..secs / 10 {
        let record = HostRecord {
            host_ts: i64::try_from(rig.world.now()).expect("small"),
            host_time: String::new(),
            host_id: HostId::new(2).expect("valid"),
            score: Score(score),
            engine_status: up(),
            hostname: "h2".to_owned(),
            maintenance: false,
            stopped: false,
            conf_on_shared_storage: true,
            vm_conf_refresh_ts: 0,
            vm_conf_refresh_time: String::new(),
            state: "EngineUp".to_owned(),
            timeout: None,
            notes: notes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        };
        rig.world.lock().blocks.insert(2, record.encode().expect("encodes"));
        rig.secs(10).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_of_the_existing_release_beside_the_founding_profile_is_said_aloud() {
    let rig = start(&World::new());
    beside(&rig, 20, 3400, &[]).await;
    let warnings = rig.last_warnings();
    assert!(
        warnings.contains("profile ovirt-4.5 (now 3400), this host by founding (at most 2400)"),
        "{warnings}"
    );
    beside(&rig, 20, 3400, &[("score_profile", "founding")]).await;
    let warnings = rig.last_warnings();
    assert!(warnings.contains("above this host's highest of 2400"), "{warnings}");
}

#[tokio::test(start_paused = true)]
async fn other_settings_of_the_same_profile_are_said_aloud() {
    let mut config = config();
    config.settings.weights = Weights { base: 3000, cpu_min: 0.5, ..Weights::of(Profile::Ovirt45) };
    let rig = start_as(&World::new(), config);
    let own = "base-score=3000 cpu-load-penalty-min=0.5";
    beside(&rig, 20, 3000, &[("score_settings", own)]).await;
    assert!(!rig.last_warnings().contains("scores with"), "{}", rig.last_warnings());
    let block = rig.world.lock().blocks[&1].clone();
    assert!(String::from_utf8_lossy(&block).contains(&format!("\nscore_settings={own}\n")));
    beside(&rig, 20, 3000, &[("score_settings", "base-score=2999")]).await;
    let warnings = rig.last_warnings();
    assert!(
        warnings.contains("settings of its own (base-score=2999), other than this host's (base-score=3000"),
        "{warnings}"
    );
}

#[tokio::test(start_paused = true)]
async fn another_lease_than_this_hosts_is_said_aloud_with_both_values() {
    let founding = ("score_profile", "founding");
    let rig = start(&World::new());
    beside(&rig, 20, 2400, &[founding]).await;
    assert!(!rig.last_warnings().contains("[lease]"), "{}", rig.last_warnings());
    let block = rig.world.lock().blocks[&1].clone();
    assert!(!String::from_utf8_lossy(&block).contains("lease="), "the defaults are not written");
    beside(&rig, 20, 2400, &[founding, ("lease", "5/30/engine")]).await;
    let warnings = rig.last_warnings();
    let says = "host h2 (id 2) has other [lease] settings in ha.toml (io_timeout = 5, watchdog_timeout = 30, \
                vm = \"engine\") than this host (io_timeout = 10, watchdog_timeout = 60, the lease of the VM's disk): \
                only one of the two can start the VM";
    assert_eq!(warnings.matches(says).count(), 1, "{warnings}");

    let lease = LeaseTable { io_timeout: 5, watchdog_timeout: 30, vm: None, ..LeaseTable::default() };
    let rig = start_as(&World::new(), AgentConfig { lease, ..config() });
    beside(&rig, 20, 2400, &[founding, ("lease", "5/30")]).await;
    assert!(!rig.last_warnings().contains("[lease]"), "{}", rig.last_warnings());
    let block = rig.world.lock().blocks[&1].clone();
    assert!(String::from_utf8_lossy(&block).contains("\nlease=5/30\n"));
    beside(&rig, 20, 2400, &[founding]).await;
    let warnings = rig.last_warnings();
    let says = "(io_timeout = 10, watchdog_timeout = 60, the lease of the VM's disk, the defaults) than this host \
                (io_timeout = 5, watchdog_timeout = 30, the lease of the VM's disk): one of the two reckons wrongly";
    assert!(warnings.contains(says), "{warnings}");
    beside(&rig, 20, 2400, &[founding, ("lease", "soon")]).await;
    let warnings = rig.last_warnings();
    assert!(warnings.contains("ha.toml (\"soon\") than"), "{warnings}");
}

#[tokio::test(start_paused = true)]
async fn blocks_that_are_too_new_are_told_and_the_agent_goes_on() {
    let world = World::new();
    world.lock().vm = running_vm();
    let rig = start(&world);
    rig.until("EngineUp", 40).await;
    let mut newer = b"2|7|in a form of its own".to_vec();
    newer.resize(metadata_format::BLOCK_SIZE, 0);
    world.lock().blocks.extend([(0, b"maintenance=0\nfrom-the-future=7\n".to_vec()), (2, newer.clone())]);
    rig.secs(120).await;
    assert_eq!((world.own_state(), rig.actions().is_empty()), ("EngineUp".to_owned(), true));
    let warnings = rig.last_warnings();
    assert_eq!(
        warnings.matches("the block of host 2 has format version 2, too new").count(),
        1,
        "{warnings}"
    );
    // What nobody here understands stays, and what is understood beside it counts.
    world.lock().blocks.insert(0, b"from-the-future=7\nmaintenance=1\n".to_vec());
    rig.until("GlobalMaintenance", 30).await;
    assert_eq!(world.lock().blocks[&2], newer);
    assert!(!rig.agent.is_finished());
}
