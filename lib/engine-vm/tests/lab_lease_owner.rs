//! Whose a lease is, as real sanlock daemons say. Needs root, sanlock and libfaketime.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::time::Duration;

use engine_vm::lease::{LeaseError, LeaseOwner, LeaseSpec};
use ha_tests::sanlock::{LeaseFile, SanlockDaemon, Speed, lab_directory};
use ha_tests::wait;
use sanlock_client::{AcquireOptions, AddOptions, HostState, Registration, RemoveOptions};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_lease_is_nobodys_this_hosts_or_anothers() {
    let directory = lab_directory().unwrap();
    let start =
        |name: &str| SanlockDaemon::start(&directory.path().join(name), name, Speed::Tenfold).unwrap();
    let (here, there, outside) = (start("a"), start("b"), start("c"));
    let path = directory.path().join("leases");
    let file = LeaseFile::create(&here.client(), &path, "space", 1, 3).unwrap();
    let resource = file.resource(1).unwrap();
    here.client().write_resource(&resource, 0, 0, None).unwrap();
    for (host, id) in [(&here, 1), (&there, 2)] {
        host.client().add_lockspace(&file.lockspace(id), AddOptions::default()).unwrap();
    }
    let seen_from = |host: &SanlockDaemon| LeaseSpec::Sanlock {
        socket: host.socket(),
        lockspace: "space".to_owned(),
        resource: "lease-1".to_owned(),
        path: path.clone(),
        offset: resource.disks[0].offset,
    };
    assert_eq!(seen_from(&here).owner(), Ok(LeaseOwner::Nobody));
    assert_eq!(seen_from(&outside).owner(), Ok(LeaseOwner::Nobody));

    let take = || {
        let mut holder = Registration::register_self(&here.client()).unwrap();
        holder.acquire(std::slice::from_ref(&resource), &AcquireOptions::default()).unwrap();
        holder
    };
    let holder = take();
    // sanlock knows its own generation from its first renewal on.
    let is_ours = || seen_from(&here).owner().ok();
    assert_eq!(wait::until("the owner to be known", SOON, is_ours), LeaseOwner::ThisHost);
    let is_live = || {
        let hosts = there.client().get_hosts(&resource.lockspace, Some(1)).ok()?;
        hosts.first().filter(|host| host.state == HostState::Live).copied()
    };
    wait::until("the other host to see this one live", SOON, is_live);
    let Ok(LeaseOwner::Other { detail }) = seen_from(&there).owner() else { panic!("not another's") };
    assert!(detail.contains("host id 1") && detail.contains("LIVE"), "{detail}");
    // Without an id of its own a host cannot tell whether an owner is itself.
    let Err(LeaseError::Unavailable(detail)) = seen_from(&outside).owner() else { panic!("known") };
    assert!(detail.contains("not in the lockspace space"), "{detail}");

    drop(holder);
    let is_free = || (seen_from(&here).owner() == Ok(LeaseOwner::Nobody)).then_some(());
    wait::until("the lease to be free", SOON, is_free);

    // The same host id in a later life: what the earlier one took is not ours.
    let holder = take();
    drop(here);
    drop(holder);
    let here = start("a");
    here.client().add_lockspace(&file.lockspace(1), AddOptions::default()).unwrap();
    let is_known = || seen_from(&here).owner().ok();
    let LeaseOwner::Other { detail } = wait::until("the owner to be known", SOON, is_known) else {
        panic!("still ours")
    };
    assert!(detail.contains("generation 1 of this host, which is generation 2"), "{detail}");
    for (host, id) in [(&here, 1), (&there, 2)] {
        host.client().remove_lockspace(&file.lockspace(id), RemoveOptions::default()).unwrap();
    }
}
