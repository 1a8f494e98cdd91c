use super::*;
use crate::deploy::storage::testing::{Site, first_host};
use crate::deploy::testing::{Heard, Recorded};
use crate::deploy::{Request, StorageKind};

/// A file that stands for a device, with LVM's label of this uuid.
fn labelled(uuid: &str) -> (tempfile::NamedTempFile, MadePhysical) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut start = vec![0; 8192];
    start[512..520].copy_from_slice(b"LABELONE");
    start[536..544].copy_from_slice(b"LVM2 001");
    start[544..576].copy_from_slice(uuid.replace('-', "").as_bytes());
    start[4100..4116].copy_from_slice(b" LVM2 x[5A%r0N*>");
    std::os::unix::fs::FileExt::write_all_at(file.as_file(), &start, 0).unwrap();
    file.as_file().set_len(300 << 20).unwrap();
    let lun = Lun { id: file.path().display().to_string(), bytes: 0 };
    (file, MadePhysical { lun, uuid: "000000-0000-0000-0000-0000-0000-000001".to_owned() })
}

const ON: &str =
    "--config 'devices{hints=\"none\" obtain_device_list_from_udev=0} backup{backup=0 archive=0}' --devices";
const PVS: &str = "--options pv_name,pv_uuid,vg_name,vg_uuid,vg_tags,pe_start,vg_extent_size,pv_pe_count,vg_free_count \
                   --reportformat json --units b --nosuffix";

fn report(path: &str, group: &str, tags: &str) -> String {
    format!(
        r#"{{"report":[{{"pv":[{{"pv_name":"{path}","pv_uuid":"u","vg_name":"{group}","vg_uuid":"g","vg_tags":"{tags}",
        "pe_start":"135266304","vg_extent_size":"134217728","pv_pe_count":"93","vg_free_count":"60"}}]}}]}}"#
    )
}

fn undo(made: &impl Undo, tools: &Recorded) -> Undone {
    let site = Site::new();
    let request = Request::FirstHost(Box::new(first_host(StorageKind::Fc, "")));
    let report = Heard::default();
    let undone = made.undo(&site.world(&request, tools, &report)).unwrap();
    tools.assert_over();
    undone
}

#[test]
fn another_label_stays_and_none_is_nothing_to_do() {
    let (_file, made) = labelled("012345-6789-abcd-ef01-2345-6789-abcdef");
    assert!(
        matches!(undo(&made, &Recorded::default()), Undone::LeftAlone(why) if why.contains("0123456789abcdef"))
    );
    let (file, made) = labelled(&made.uuid);
    file.as_file().set_len(0).unwrap();
    file.as_file().set_len(300 << 20).unwrap();
    assert_eq!(undo(&made, &Recorded::default()), Undone::Absent);
}

#[test]
fn a_label_below_a_group_stays() {
    let (file, made) = labelled("000000-0000-0000-0000-0000-0000-000001");
    let path = file.path().display().to_string();
    let out = report(&path, "somebodys", "");
    let tools = Recorded::new(&[(&format!("lvm pvs {ON} {path} {PVS}"), 0, &out, "")]);
    assert!(matches!(undo(&made, &tools), Undone::LeftAlone(why) if why.contains("somebodys")));
}

#[test]
fn the_own_label_goes_last() {
    let (file, made) = labelled("000000-0000-0000-0000-0000-0000-000001");
    let path = file.path().display().to_string();
    let out = report(&path, "", "");
    let zero = |offset: u64, length: u64| {
        format!("blkdiscard --force --zeroout --offset {offset} --length {length} {path}")
    };
    let area = 130 << 20;
    let tools = Recorded::new(&[
        (&format!("lvm pvs {ON} {path} {PVS}"), 0, &out, ""),
        (&zero((300 << 20) - area, area), 0, "", ""),
        (&zero(4096, area - 4096), 0, "", ""),
        (&zero(0, 4096), 0, "", ""),
    ]);
    assert_eq!(undo(&made, &tools), Undone::TakenBack);
}

#[test]
fn a_group_of_the_same_name_without_the_tag_is_not_touched() {
    let (file, made) = labelled("000000-0000-0000-0000-0000-0000-000001");
    let path = file.path().display().to_string();
    let group = MadeGroup { lun: made.lun, name: "sd".to_owned(), tag: "OVIRT_HA_DEPLOY_1".to_owned() };
    for (name, tags) in [("sd", "RHAT_storage_domain"), ("other", "OVIRT_HA_DEPLOY_1")] {
        let look = format!("lvm pvs {ON} {path} {PVS}");
        let out = report(&path, name, tags);
        let tools = Recorded::new(&[(&look, 0, &out, "")]);
        assert!(
            matches!(undo(&group, &tools), Undone::LeftAlone(why) if why.contains("somebody else made it"))
        );
        let logical = MadeLogical { group: group.clone(), name: "ids".to_owned() };
        let tools = Recorded::new(&[(&look, 0, &out, "")]);
        assert!(matches!(undo(&logical, &tools), Undone::LeftAlone(_)));
    }
}
