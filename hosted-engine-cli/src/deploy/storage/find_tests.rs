use metadata_format::{BLOCK_SIZE, block_offset};

use super::*;

fn id(number: u16) -> HostId {
    HostId::new(number).unwrap()
}

fn lease(owner: &str, timestamp: u64) -> DeltaRecord {
    let mut sector = vec![0; 512];
    sector[..4].copy_from_slice(&0x1221_2010_u32.to_le_bytes());
    sector[104..104 + owner.len()].copy_from_slice(owner.as_bytes());
    sector[152..160].copy_from_slice(&timestamp.to_le_bytes());
    DeltaRecord::parse(&sector).unwrap()
}

/// A metadata file with these hosts' blocks.
fn blocks(all: &[(u16, &str)]) -> Vec<u8> {
    let mut file = vec![0; 16 * BLOCK_SIZE];
    for (number, name) in all {
        let at = usize::try_from(block_offset(*number)).unwrap();
        let record = format!("1|1|77|{number}|2400|vm-down|{name}");
        file[at..at + record.len()].copy_from_slice(record.as_bytes());
        let extra = "timestamp=77 (Sat Nov 21 17:30:00 2026)\n";
        file[at + 512..at + 512 + extra.len()].copy_from_slice(extra.as_bytes());
    }
    file
}

#[test]
fn the_lowest_id_without_block_and_lease_is_proposed() {
    let set = |ids: &[u16]| ids.iter().map(|number| id(*number)).collect::<BTreeSet<_>>();
    for (blocks, leases, expected) in [
        (&[][..], &[][..], Some(1)),
        (&[1, 2], &[], Some(3)),
        (&[1], &[2, 3], Some(4)),
        (&[2], &[2], Some(1)),
    ] {
        assert_eq!(lowest_free_id(&set(blocks), &set(leases)), expected.map(id));
    }
    let all: Vec<u16> = (1..=MAX_HOST_ID).collect();
    assert_eq!(lowest_free_id(&set(&all), &set(&[])), None);
}

#[test]
fn an_id_in_use_is_refused_with_its_owner() {
    let leases = BTreeMap::from([
        (id(1), lease("h1", 5)),
        (id(2), lease("1f2e3d4c.h2", 5)),
        (id(4), lease("h4", 0)),
        (id(6), lease("h6", 9)),
    ]);
    let mut file = blocks(&[(1, "h1"), (2, "h2"), (3, "h3")]);
    let at = usize::try_from(block_offset(5)).unwrap();
    file[at..at + BLOCK_SIZE].fill(b'x');
    let hosts = Hosts::from_storage(&file, leases);
    assert_eq!(hosts.lowest_free_id(), Some(id(4)), "given up in order");

    let refusal = |number, own: &str| hosts.refuse_taken(id(number), own).unwrap_err().to_string();
    let said = refusal(1, "new");
    assert!(
        said.contains("host id 1 belongs to the host \"h1\", last seen Sat Nov 21 17:30:00 2026"),
        "{said}"
    );
    assert!(
        said.contains("another id (4 is free)") && said.contains("--clean-metadata --host-id=1"),
        "{said}"
    );
    let said = refusal(3, "new");
    assert!(said.contains("host id 3 has a block of the host \"h3\", last seen Sat"), "{said}");
    assert!(refusal(5, "h5").contains("host id 5 has a block that cannot be read"));
    assert!(refusal(6, "new").contains("host id 6 belongs to the host \"h6\", which has not"));

    for (number, own) in [(1, "h1"), (2, "h2"), (3, "h3"), (4, "new"), (7, "new")] {
        hosts.refuse_taken(id(number), own).unwrap();
    }
    let others = hosts.others(Some(id(1))).unwrap();
    assert_eq!(others, "host 2 (h2), host 3 (h3), host 5, host 6 (h6)");
    assert_eq!(Hosts::from_storage(&blocks(&[(1, "h1")]), BTreeMap::new()).others(Some(id(1))), None);
}

#[test]
fn one_cluster_is_meant_or_none() {
    let found = |uuid| FoundDomain { sd_uuid: Uuid::from_u128(uuid), configuration: PathBuf::new() };
    let one = |all: &[u128], wanted: Option<u128>| {
        the_one(all.iter().map(|uuid| found(*uuid)).collect(), wanted.map(Uuid::from_u128), "a:/he")
            .map(|found| found.sd_uuid.as_u128())
            .map_err(|error| error.to_string())
    };
    assert_eq!(one(&[7], None), Ok(7));
    assert_eq!(one(&[7, 8], Some(8)), Ok(8));
    assert!(one(&[], None).unwrap_err().contains("a:/he: there is no hosted engine"));
    assert!(one(&[7, 8], None).unwrap_err().contains("there are 2 hosted engines on a:/he"));
    assert!(one(&[7], Some(9)).unwrap_err().contains("but 00000000-0000-0000-0000-000000000007"));
}
