use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::read::merge;
use super::*;
use crate::deploy::questions::{self, keys};

fn parse(text: &str) -> Result<Loaded, AnswersError> {
    merge([(Path::new("answers.conf"), 0o600, text)])
}

fn text(answers: &Answers, key: &str) -> Option<String> {
    answers.get(key).and_then(Value::typed)
}

#[test]
fn a_file_of_the_existing_tool_is_read() {
    let loaded = parse(
        "\u{feff}# made by the existing tool\n[environment:default]\n\
         OVEHOSTED_CORE/screenProceed=bool:True\nOVEHOSTED_CORE/confirmSettings=bool:True\n\
         ; another comment\n\
         OVEHOSTED_STORAGE/domainType = str:nfs4\r\n\
         OVEHOSTED_VM/vmMemSizeMB: int:16384\n\
         OVEHOSTED_VM/vmCDRom=none:None\n\
         OVEHOSTED_VM/rootSshPubkey=multi-str:ssh-ed25519 AAAA one\n    ssh-rsa BBBB two\n\n\tssh-rsa CCCC three\n\
         OVEHOSTED_STORAGE/mntOptions=str:\n\
         OVEHOSTED_ENGINE/appHostName=str:100%% of: it=all\n\
         QUESTION/1/OVESETUP_SOMETHING=str:yes\n\
         [environment:others]\nOVEHOSTED_STORAGE/domainType=nonsense\n    more of it\n\
         [query]\nOVEHOSTED_NETWORK/fqdn=str:not.read\n",
    )
    .unwrap();
    assert_eq!(loaded.warnings, [] as [&str; 0]);
    let answers = &loaded.answers;
    assert_eq!(answers.get(keys::SCREEN_PROCEED), Some(&Value::Bool(true)));
    assert_eq!(text(answers, keys::DOMAIN_TYPE).as_deref(), Some("nfs4"));
    assert_eq!(answers.get(keys::MEMORY_MB), Some(&Value::Integer(16384)));
    assert_eq!(answers.get(keys::CDROM), Some(&Value::None));
    assert_eq!(
        text(answers, keys::SSH_KEYS).unwrap(),
        "ssh-ed25519 AAAA one\nssh-rsa BBBB two\nssh-rsa CCCC three"
    );
    assert_eq!(text(answers, keys::MOUNT_OPTIONS).as_deref(), Some(""));
    assert_eq!(text(answers, keys::APP_HOST_NAME).as_deref(), Some("100% of: it=all"));
    assert_eq!(answers.iter().count(), 8, "{answers:?}");
}

#[test]
fn later_files_win_and_stronger_sections_win_over_them() {
    let first = "[environment:default]\nOVEHOSTED_NETWORK/fqdn=str:a.example\nOVEHOSTED_NETWORK/gateway=str:1.1.1.1\n\
                 [environment:override]\nOVEHOSTED_VM/vmVCpus=int:8\n";
    let second = "[environment:init]\nOVEHOSTED_VM/vmVCpus=int:2\n[environment:default]\n\
                  OVEHOSTED_NETWORK/fqdn=str:b.example\n";
    let loaded = merge([(Path::new("1"), 0o644, first), (Path::new("2"), 0o644, second)]).unwrap();
    assert_eq!(text(&loaded.answers, keys::FQDN).as_deref(), Some("b.example"));
    assert_eq!(text(&loaded.answers, keys::GATEWAY).as_deref(), Some("1.1.1.1"));
    assert_eq!(text(&loaded.answers, keys::VCPUS).as_deref(), Some("8"), "override is stronger than init");
}

#[test]
fn a_bad_line_is_named() {
    for (content, line, part) in [
        ("OVEHOSTED_NETWORK/fqdn=str:x\n", 1, "[environment:default] is missing"),
        ("[environment:default\n", 1, "]"),
        ("[environment:default]\n\nnonsense\n", 3, "key=type:value"),
        ("[environment:default]\n=str:x\n", 2, "no key"),
        (
            "[environment:default]\nOVEHOSTED_NETWORK/fqdn=e.example\n",
            2,
            "has no type, for example str:e.example",
        ),
        ("[environment:default]\nOVEHOSTED_VM/vmVCpus=int:two\n", 2, "\"two\" is no whole number"),
        ("[environment:default]\nOVEHOSTED_VM/vmVCpus=float:2\n", 2, "\"float\" is no type"),
        (
            "[environment:default]\nOVEHOSTED_CORE/confirmSettings=bool:maybe\n",
            2,
            "\"maybe\" must be True or False",
        ),
    ] {
        let error = parse(content).unwrap_err().to_string();
        assert!(error.starts_with(&format!("answers.conf:{line}: ")) && error.contains(part), "{error}");
    }
}

#[test]
fn passwords_never_stand_in_errors() {
    for value in ["s3cret", "s3cret:x", "int:s3cret", "bool:s3cret"] {
        for key in [keys::ADMIN_PASSWORD, "OVEHOSTED_FIRST_HOST/rootPassword", keys::ROOT_PASSWORD] {
            let error = parse(&format!("[environment:default]\n{key}={value}\n")).unwrap_err().to_string();
            assert!(error.contains(key) && !error.contains("s3cret"), "{error}");
        }
    }
}

#[test]
fn unknown_keys_are_kept_and_told_with_the_nearest_known_one() {
    let loaded = parse("[environment:default]\nOVEHOSTED_STORAGE/domainTyp=str:nfs\n").unwrap();
    assert_eq!(
        loaded.warnings,
        ["answers.conf:2: OVEHOSTED_STORAGE/domainTyp is no key of the hosted engine; is \
          OVEHOSTED_STORAGE/domainType meant?"]
    );
    assert_eq!(text(&loaded.answers, "OVEHOSTED_STORAGE/domainTyp").as_deref(), Some("nfs"));
    assert!(loaded.answers.to_string().contains("OVEHOSTED_STORAGE/domainTyp=str:nfs\n"));
}

#[test]
fn former_keys_are_taken_for_their_present_names() {
    let read = |lines: &str| parse(&format!("[environment:default]\n{lines}")).unwrap();
    let loaded = read("OVEHOSTED_STORAGE/iSCSILunId=str:36001\nOVEHOSTED_ENGINE/datacenterName=str:Old\n");
    assert_eq!(text(&loaded.answers, keys::LUN).as_deref(), Some("36001"));
    assert_eq!(text(&loaded.answers, keys::DATACENTER).as_deref(), Some("Old"));
    let loaded = read(
        "OVEHOSTED_STORAGE/storageDatacenterName=str:New\nOVEHOSTED_ENGINE/datacenterName=str:Old\n\
         OVEHOSTED_NETWORK/firewallManager=str:iptables\nOVEHOSTED_STORAGE/storageType=int:6\n",
    );
    assert_eq!(text(&loaded.answers, keys::DATACENTER).as_deref(), Some("New"));
    assert_eq!(loaded.answers.get(keys::OPEN_FIREWALL), Some(&Value::Bool(true)));
    assert_eq!(text(&loaded.answers, keys::DOMAIN_TYPE).as_deref(), Some("directory"));
    let loaded = read(
        "OVEHOSTED_STORAGE/domainType=str:nfs\nOVEHOSTED_STORAGE/nfsVersion=str:v4_1\n\
         OVEHOSTED_STORAGE/mntOptions=str:noatime\nOVEHOSTED_NETWORK/firewallManager=str:\n",
    );
    assert_eq!(text(&loaded.answers, keys::DOMAIN_TYPE).as_deref(), Some("nfs4"));
    assert_eq!(text(&loaded.answers, keys::MOUNT_OPTIONS).as_deref(), Some("noatime,vers=4.1"));
    assert_eq!(loaded.answers.get(keys::OPEN_FIREWALL), Some(&Value::Bool(false)));
    let loaded = read("OVEHOSTED_VM/ovfArchive=str:/usr/share/appliance.ova\n");
    assert_eq!(
        text(&loaded.answers, keys::BOOT).as_deref(),
        Some("disk"),
        "an appliance boots from its disk"
    );
    let loaded = read("OVEHOSTED_NOTIF/smtpServer=str:mail\nOVEHOSTED_NOTIF/smtpPort=none:None\n");
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert!(
        loaded.warnings[0].contains("smtpServer has no effect")
            && loaded.warnings[0].contains("--set-shared-config")
    );
}

#[test]
fn no_former_key_is_a_present_one() {
    for (key, former) in former_keys() {
        assert!(questions::find(&key).is_none(), "{key}");
        if let Former::Renamed(present) | Former::Converted(present) = former {
            let is_used = questions::find(present).is_some() || keys::CONFIRMATIONS.contains(&present);
            assert!(is_used, "{key}: there is no {present}");
        }
    }
}

#[test]
fn passwords_are_taken_only_from_files_that_others_cannot_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secrets.conf");
    std::fs::write(&path, "[environment:default]\nOVEHOSTED_ENGINE/adminPassword=str:s3 cret%%\n").unwrap();
    let load = |mode: u32| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        load(std::slice::from_ref(&path))
    };
    for mode in [0o644, 0o640, 0o604] {
        let error = load(mode).unwrap_err().to_string();
        let advice = format!("chmod 600 {}", path.display());
        assert!(
            error.contains(":2:") && error.contains(&advice) && error.contains(&format!("{mode:04o}")),
            "{error}"
        );
        assert!(!error.contains("s3"), "{error}");
    }
    let answers = load(0o600).unwrap().answers;
    assert_eq!(answers.get(keys::ADMIN_PASSWORD), Some(&Value::Secret(Secret::new("s3 cret%"))));
    assert!(!format!("{answers:?}").contains("s3"));
}

#[test]
fn files_that_cannot_be_answer_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let refused = |path: &PathBuf| load(std::slice::from_ref(path)).unwrap_err().to_string();
    assert!(refused(&path).contains("cannot read the answer file"));
    assert!(refused(&folder.path().to_owned()).contains("no regular file"));
    std::fs::write(&path, b"[environment:default]\n\xff\n").unwrap();
    assert!(refused(&path).contains("UTF-8"));
    std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(refused(&path).contains("longer than"));
}

#[test]
fn what_is_written_is_private_and_names_passwords_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("answers.conf");
    let mut answers = Answers::default();
    answers.set(keys::FQDN, Value::Text("engine.example".to_owned()));
    answers.set(keys::ADMIN_PASSWORD, Value::Secret(Secret::new("s3cret")));
    answers.set(keys::SSH_KEYS, Value::Lines(vec!["ssh-rsa A".to_owned(), "ssh-rsa B".to_owned()]));
    std::fs::write(&path, "before").unwrap();
    answers.save(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o007, 0);
    let written = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        written,
        "# Answers for hosted-engine --deploy --config-append=FILE\n\n[environment:default]\n\
         OVEHOSTED_NETWORK/fqdn=str:engine.example\n\
         OVEHOSTED_VM/rootSshPubkey=multi-str:ssh-rsa A\n    ssh-rsa B\n\n\
         # Passwords are not written. hosted-engine asks for them on a terminal. To deploy without one, put them\n\
         # into another answer file of mode 0600, and name it after this one with --config-append:\n\
         #   OVEHOSTED_ENGINE/adminPassword=str:…\n"
    );
}

/// Lines as files can hold them: trimmed, and not to be taken for comments.
fn line() -> impl Strategy<Value = String> {
    "[^#;\\s\\p{C}][^\\p{C}]{0,20}".prop_map(|text| text.trim().to_owned())
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        line().prop_map(Value::Text),
        Just(Value::Text(String::new())),
        any::<i64>().prop_map(Value::Integer),
        any::<bool>().prop_map(Value::Bool),
        Just(Value::None),
        proptest::collection::vec(line(), 1..4).prop_map(Value::Lines),
    ]
}

proptest! {
    #[test]
    fn what_is_written_reads_back(values in proptest::collection::btree_map("OVEHOSTED_X/[a-z]{1,9}", value(), 0..9)) {
        let answers = Answers { values };
        let loaded = parse(&answers.to_string()).unwrap();
        prop_assert_eq!(loaded.answers, answers);
    }

    #[test]
    fn no_text_is_too_strange(text in "\\PC*") {
        let _ = parse(&text);
        let _ = parse(&format!("[environment:default]\n{text}"));
    }

    #[test]
    fn lines_of_the_right_kind_in_any_order_are_read_or_named(
        lines in proptest::collection::vec(
            prop_oneof![
                Just("[environment:default]".to_owned()),
                Just("[environment:override]".to_owned()),
                Just("[".to_owned()),
                Just(String::new()),
                "[#;] ?[a-z]{0,5}",
                "[ \t]{0,2}OVEHOSTED_(CORE|VM)/[a-z%]{0,6} ?[=:] ?(str|int|bool|none|multi-str|x)?:?[ a-z0-9%]{0,6}",
                "[ \t]{1,3}[a-z=:%#\\[\\]]{0,6}",
            ],
            0..12,
        )
    ) {
        let text = lines.join("\n");
        match parse(&text) {
            Ok(loaded) => {
                // What was kept can be written, and means the same then.
                let again = parse(&loaded.answers.to_string()).unwrap();
                prop_assert_eq!(again.answers, loaded.answers);
            }
            Err(AnswersError::Line { line, .. }) => prop_assert!((1..=lines.len()).contains(&line)),
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}
