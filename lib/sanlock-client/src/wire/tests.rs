//! Goldens of the layout, and no bytes that can hurt the decoder.

use proptest::prelude::*;

use super::*;
use crate::model::{Disk, HostState, Lockspace, LockspacePhase, Resource};
use crate::names::{DiskPath, LockspaceName, ResourceName};

fn lockspace() -> Lockspace {
    Lockspace {
        name: LockspaceName::new("hosted-engine").unwrap(),
        host_id: 7,
        disk: Disk { path: DiskPath::new("/shared/ids").unwrap(), offset: 1 << 20 },
    }
}

fn resource() -> Resource {
    Resource {
        lockspace: LockspaceName::new("sd").unwrap(),
        name: ResourceName::new("disk").unwrap(),
        disks: vec![Disk { path: DiskPath::new("/shared/leases").unwrap(), offset: 0x0102_0304 }],
    }
}

fn header(data: i32, data2: u32, body: usize) -> Header {
    let mut header = Header::request(Command::GetHosts, 0, body, 0, data2);
    header.data = data.cast_unsigned();
    header
}

#[test]
fn a_request_header_has_sanlocks_bytes() {
    let bytes = Header::request(Command::Acquire, ACQUIRE_OWNER_NOWAIT, 1224, 1, u32::MAX).to_bytes();
    assert_eq!(&bytes[..4], [0x10, 0x20, 0x28, 0x04]);
    assert_eq!(&bytes[4..20], [1, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 0xe8, 4, 0, 0]);
    assert_eq!(&bytes[20..], [0, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(Header::from_bytes(&bytes).unwrap().body_len().unwrap(), 1224);
}

#[test]
fn a_lockspace_and_a_resource_have_their_fields_where_sanlock_looks() {
    let body = lockspace_body(&lockspace(), grid_flags(crate::GridSize::Sector512Align1M));
    assert_eq!(body.len(), 1104);
    assert_eq!(&body[..14], b"hosted-engine\0");
    assert_eq!(&body[48..60], [7, 0, 0, 0, 0, 0, 0, 0, 0x10, 1, 0, 0]);
    assert_eq!(&body[64..76], b"/shared/ids\0");
    assert_eq!(&body[1088..1096], [0, 0, 16, 0, 0, 0, 0, 0]);

    let body = acquire_body(&[resource()], "qemu");
    assert_eq!(body.len(), 128 + 1040 + 56);
    assert_eq!((&body[..3], &body[48..53]), (&b"sd\0"[..], &b"disk\0"[..]));
    assert_eq!(&body[124..128], [1, 0, 0, 0]);
    assert_eq!(&body[128..143], b"/shared/leases\0");
    assert_eq!(&body[1152..1160], [4, 3, 2, 1, 0, 0, 0, 0]);
    assert_eq!(&body[1168..1173], b"qemu\0");
    assert_eq!(release_body(&[resource()]).len(), 128);
}

#[test]
fn a_lockspace_comes_back_as_it_went() {
    let body = lockspace_body(&lockspace(), LS_FLAG_ADD);
    let list = lockspaces(&body, 1).unwrap();
    assert_eq!(list[0].lockspace, lockspace());
    assert_eq!(list[0].phase, LockspacePhase::Joining);
}

#[test]
fn hosts_are_read_and_an_unknown_state_is_unknown() {
    use HostState::{Dead, Fail, Free, Live, Unknown};

    let mut body = Vec::new();
    for flags in [1u32, 2, 3, 4, 5, 9] {
        body.extend(7u64.to_le_bytes());
        body.extend(3u64.to_le_bytes());
        body.extend(99u64.to_le_bytes());
        body.extend(10u32.to_le_bytes());
        body.extend(flags.to_le_bytes());
    }
    let states: Vec<_> = hosts(&body, 6).unwrap().into_iter().map(|host| host.state).collect();
    assert_eq!(states, [Unknown, Free, Live, Fail, Dead, Unknown]);
    let error = hosts(&body, 2000).unwrap_err();
    assert_eq!(error.0, "the list of hosts announces 2000 items of 32 bytes and carries 192 bytes");
}

#[test]
fn a_length_that_cannot_be_is_refused_before_anything_is_allocated() {
    for length in [0, 31, u32::MAX, 33 + (1 << 20)] {
        let mut header = header(0, 0, 0);
        header.length = length;
        assert!(header.body_len().unwrap_err().0.contains(&length.to_string()));
    }
    assert_eq!(result_of(&header(-243, 0, 0)), Err(-243));
    let mut bytes = header(0, 0, 0).to_bytes();
    bytes[0] = b'H';
    assert!(Header::from_bytes(&bytes).unwrap_err().0.contains("0x04282048"));
    let mut newer = header(0, 0, 0);
    newer.version = 0x0002_0000;
    assert!(Header::from_bytes(&newer.to_bytes()).unwrap_err().0.contains("0x20000"));
}

#[test]
fn the_release_is_read_from_one_number() {
    let version = version(&header(0, 0x0308_0500, 0));
    assert_eq!((version.to_string(), version.protocol), ("3.8.5".to_owned(), 1));
}

#[test]
fn held_resources_are_read_from_text() {
    let held = resources_held(b"sd:disk:/shared/a\\:b:1048576:42 sd:two:/x:0:/y:5:SH\0").unwrap();
    assert_eq!(held.len(), 2);
    assert_eq!(held[0].resource.disks[0].path.to_string(), "/shared/a:b");
    assert_eq!((held[0].resource.disks[0].offset, held[0].lver), (1 << 20, Some(42)));
    assert_eq!((held[1].resource.disks.len(), held[1].lver), (2, None));
    assert_eq!(resources_held(b"").unwrap(), []);
    for bad in ["x", "a:b:c", "a:b:/c:x:1", "a:b:/c:1:x", "a:b:c:1:1", " ", "a:b:/c:1:/d:2"] {
        assert!(resources_held(bad.as_bytes()).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(head in any::<[u8; HEADER_LEN]>(),
                                       body in prop::collection::vec(any::<u8>(), 0..3000),
                                       count in prop_oneof![0u32..4, any::<u32>()]) {
        if let Ok(header) = Header::from_bytes(&head) {
            prop_assert!(header.body_len().unwrap_or(0) <= MAX_BODY);
        }
        // A count that is answered is one that the bytes bear out.
        if let Ok(list) = hosts(&body, count) { prop_assert_eq!(list.len() * HOST_LEN, body.len()) }
        if let Ok(list) = lockspaces(&body, count) { prop_assert_eq!(list.len() * LOCKSPACE_LEN, body.len()) }
        if let Ok(owners) = owners(&body, count) {
            prop_assert_eq!(owners.owners.len() * HOST_LEN + RESOURCE_LEN, body.len());
        }
        let _ = resource_record(&body);
        let _ = resources_held(&body);
    }

    #[test]
    fn no_text_makes_the_inquiry_panic(text in "[a:/ \\\\0-9SH\u{e9}\0]{0,200}") {
        let _ = resources_held(text.as_bytes());
    }

    #[test]
    fn every_path_survives_the_inquirys_escapes(path in "/[ -~]{1,60}", offset in any::<u64>(), lver in any::<u64>()) {
        prop_assume!(!path.contains('\\'));
        let escaped = path.replace(':', "\\:").replace(' ', "\\ ");
        let held = resources_held(format!("l:r:{escaped}:{offset}:{lver}").as_bytes()).unwrap();
        prop_assert_eq!(held[0].resource.disks[0].path.to_string(), path);
        prop_assert_eq!((held[0].resource.disks[0].offset, held[0].lver), (offset, Some(lver)));
    }
}
