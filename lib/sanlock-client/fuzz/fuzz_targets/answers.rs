//! Any bytes as an answer of the daemon: `cargo +nightly fuzz run answers`, from `lib/sanlock-client/`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sanlock_client::wire::{
    self, HEADER_LEN, HOST_LEN, Header, LOCKSPACE_LEN, MAX_BODY, RESOURCE_LEN, STATE_TEXT,
};

fuzz_target!(|bytes: &[u8]| {
    let Some((head, body)) = bytes.split_first_chunk::<HEADER_LEN>() else { return };
    let Ok(header) = Header::from_bytes(head) else { return };
    assert!(header.body_len().unwrap_or(0) <= MAX_BODY);
    // A list that is taken has exactly the bytes that its count announces.
    if let Ok(hosts) = wire::hosts(body, header.data2) {
        assert_eq!(hosts.len() * HOST_LEN, body.len());
    }
    if let Ok(lockspaces) = wire::lockspaces(body, header.data2) {
        assert_eq!(lockspaces.len() * LOCKSPACE_LEN, body.len());
    }
    if let Ok(found) = wire::owners(body, header.data2) {
        assert_eq!(RESOURCE_LEN + found.owners.len() * HOST_LEN, body.len());
    }
    let _ = wire::daemon_settings(body);
    if let Some((head, _)) = body.split_first_chunk() {
        assert!(wire::state_text_len(head).unwrap_or(0) <= STATE_TEXT);
    }
    let _ = wire::resource_record(body);
    let _ = wire::resources_held(body);
    let _ = (wire::version(&header), wire::result_of(&header));
});
