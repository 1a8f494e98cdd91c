//! Whose a lease is, as real sanlock daemons say. Needs root, sanlock and libfaketime.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::time::Duration;

use engine_vm::lease::{LeaseError, LeaseOwner, LeaseSpec};
use ha_tests::sanlock::{LeaseFile, SanlockDaemon, Speed, lab_directory};
use ha_tests::wait;
use sanlock_client::{AcquireOptions, AddOptions, HostState, Registration, RemoveOptions};

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
    assert_eq!(seen_from(&here).owner(), Ok(LeaseOwner::ThisHost));
    let is_live = || {
        let hosts = there.client().get_hosts(&resource.lockspace, Some(1)).ok()?;
        hosts.first().map(|host| host.state == HostState::Live)
    };
    assert!(wait::until("the other host to see this one live", Duration::from_secs(20), is_live));
    let Ok(LeaseOwner::Other { detail }) = seen_from(&there).owner() else { panic!("not another's") };
    assert!(detail.contains("host id 1") && detail.contains("LIVE"), "{detail}");
    // Without an id of its own a host cannot tell whether an owner is itself.
    let Err(LeaseError::Unavailable(detail)) = seen_from(&outside).owner() else { panic!("known") };
    assert!(detail.contains("not in the lockspace space"), "{detail}");

    drop(holder);
    let is_free = || Some(seen_from(&here).owner() == Ok(LeaseOwner::Nobody));
    assert!(wait::until("the lease to be free", Duration::from_secs(10), is_free));

    // The same host id in a later life: what the earlier one took is not ours.
    let holder = take();
    drop(here);
    drop(holder);
    let here = start("a");
    here.client().add_lockspace(&file.lockspace(1), AddOptions::default()).unwrap();
    let Ok(LeaseOwner::Other { detail }) = seen_from(&here).owner() else { panic!("still ours") };
    assert!(detail.contains("generation 1 of this host, which is generation 2"), "{detail}");
    for (host, id) in [(&here, 1), (&there, 2)] {
        host.client().remove_lockspace(&file.lockspace(id), RemoveOptions::default()).unwrap();
    }
}
