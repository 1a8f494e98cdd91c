use super::*;
use crate::deploy::testing::Recorded;

const ON: &str = "--config 'devices{hints=\"none\" obtain_device_list_from_udev=0} backup{backup=0 archive=0}' \
                  --devices /dev/loop0";

/// What LVM 2.03.16 said.
const PVS: &str = r#"  {
      "report": [
          {
              "pv": [
                  {"pv_name":"/dev/loop0", "pv_uuid":"012345-6789-abcd-ef01-2345-6789-abcdef", "vg_name":"11111111-2222-3333-4444-555555555555", "vg_uuid":"SQjZTl-dFRr-iiSb-hTK0-iGnW-CQlL-83CCx1", "vg_tags":"OVIRT_HA_DEPLOY_x,RHAT_storage_domain_UNREADY", "pe_start":"135266304", "vg_extent_size":"134217728", "pv_pe_count":"93", "vg_free_count":"60"}
              ]
          }
      ]
  }
"#;

const LVS: &str = r#"{"report": [{"lv": [
    {"lv_name":"leases", "lv_tags":"MD_1,IU_x", "lv_size":"2147483648", "seg_pe_ranges":"/dev/loop0:1-16"},
    {"lv_name":"disk", "lv_tags":"", "lv_size":"402653184", "seg_pe_ranges":"/dev/loop0:17-18"},
    {"lv_name":"disk", "lv_tags":"", "lv_size":"402653184", "seg_pe_ranges":"/dev/other:0-0"}]}]}"#;

fn pvs(out: &str) -> Result<Vec<Physical>, DeployError> {
    let call = format!("lvm pvs {ON} --options {PHYSICAL} --reportformat json --units b --nosuffix");
    let tools = Recorded::new(&[(&call, 0, out, "")]);
    let found = Lvm::on(&tools, Path::new("/dev/loop0")).physicals();
    tools.assert_over();
    found
}

#[test]
fn what_lvm_reports_is_understood() {
    let physical = pvs(PVS).unwrap().remove(0);
    assert!(physical.has_tag("RHAT_storage_domain_UNREADY") && !physical.has_tag("RHAT_storage_domain"));
    assert_eq!((physical.extents(), physical.free_bytes()), (93, 60 << 27));

    let call = format!(
        "lvm lvs {ON} --options lv_name,lv_tags,lv_size,seg_pe_ranges g --reportformat json --units b --nosuffix"
    );
    let tools = Recorded::new(&[(&call, 0, LVS, "")]);
    let volumes = Lvm::on(&tools, Path::new("/dev/loop0")).volumes("g").unwrap();
    let names: Vec<_> = volumes.iter().map(|volume| volume.name.as_str()).collect();
    assert_eq!(names, ["leases", "disk"], "one for each volume, not for each of its parts");
    assert_eq!(volumes[0].tag("MD_"), Some("1"));
    let start = 135_266_304;
    assert_eq!(physical.ranges(&volumes[0]), [Range { offset: start + (1 << 27), length: 16 << 27 }]);
    assert_eq!(
        physical.ranges(&volumes[1]),
        [Range { offset: start + (17 << 27), length: 2 << 27 }],
        "not what lies on another device"
    );
}

#[test]
fn a_device_without_a_label_is_none_and_nonsense_is_no_answer() {
    assert_eq!(pvs(r#"{"report": [{"pv": []}]}"#).unwrap(), []);
    for out in ["", "{}", r#"{"report": [{"pv": [{"pv_name":"x"}]}]}"#, &PVS.replace("135266304", "129.00m")]
    {
        let error = pvs(out).unwrap_err().to_string();
        assert!(error.contains("cannot be read") && error.contains("2.03.12"), "{error}");
    }
}

#[test]
fn what_is_in_use_says_who_may_use_it() {
    let said = "  Logical volume g/ids in use.\n";
    let call = format!("lvm lvchange {ON} --activate n g/ids");
    let tools = Recorded::new(&[(&call, 5, "", said)]);
    let error = Lvm::on(&tools, Path::new("/dev/loop0")).deactivate("g", "ids").unwrap_err().to_string();
    assert!(error.contains("g/ids in use") && error.contains("ovirt-ha-broker"), "{error}");
}

#[test]
fn the_commands_are_those_of_vdsm() {
    let tools = Recorded::new(&[
        (
            &format!(
                "lvm pvcreate {ON} --uuid u --norestorefile --metadatasize 128m --metadatacopies 2 --metadataignore y \
                 /dev/loop0"
            ),
            0,
            "",
            "",
        ),
        (&format!("lvm pvchange {ON} --metadataignore n /dev/loop0"), 0, "", ""),
        (
            &format!(
                "lvm vgcreate {ON} --setautoactivation n --physicalextentsize 128m --addtag a --addtag b g /dev/loop0"
            ),
            0,
            "",
            "",
        ),
        (
            &format!(
                "lvm lvcreate {ON} --yes --wipesignatures n --contiguous n --size 256m --addtag MD_1 --name v g"
            ),
            0,
            "",
            "",
        ),
        (&format!("lvm vgchange {ON} --deltag a --addtag c g"), 0, "", ""),
        (&format!("lvm lvchange {ON} --activate y g/v g/w"), 0, "", ""),
    ]);
    let device = Path::new("/dev/loop0");
    let lvm = Lvm::on(&tools, device);
    lvm.create_physical(device, "u", 128).unwrap();
    lvm.create_group(device, "g", 128, &["a", "b"]).unwrap();
    lvm.create_volume("g", "v", 256, &["MD_1".to_owned()]).unwrap();
    lvm.change_tags("g", &["a"], &["c".to_owned()]).unwrap();
    lvm.activate("g", &["v", "w"]).unwrap();
    tools.assert_over();
}

#[test]
fn zeros_are_written_in_parts_that_have_a_deadline_each() {
    let tools = Recorded::new(&[
        ("blkdiscard --force --zeroout --offset 4096 --length 1073741824 /dev/x", 0, "", ""),
        ("blkdiscard --force --zeroout --offset 1073745920 --length 512 /dev/x", 0, "", ""),
    ]);
    zero(&tools, Path::new("/dev/x"), Range { offset: 4096, length: (1 << 30) + 512 }).unwrap();
    tools.assert_over();
}
