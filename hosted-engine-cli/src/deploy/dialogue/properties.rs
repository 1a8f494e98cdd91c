//! What holds for every answer and every mixture of them.

use proptest::prelude::*;

use super::testing::{StandIn, cluster, file};
use super::*;
use crate::deploy::questions::Device;

/// Texts of which each is right for some questions and wrong for others.
const TEXTS: &[&str] = &[
    "",
    "0",
    "1",
    "2",
    "25",
    "443",
    "4096",
    "-1",
    "yes",
    "no",
    "nfs",
    "nfs4",
    "glusterfs",
    "iscsi",
    "fc",
    "directory",
    "/srv/he",
    "nas:/he",
    "10.0.0.1",
    "10.0.0.1,10.0.0.2",
    "10.0.0.5/24",
    "fd00::5/64",
    "fd00::1",
    "192.0.2.1",
    "iqn.2026-01.com.example:a",
    "36001405aaaa",
    "ping",
    "dns",
    "tcp",
    "none",
    "eth0",
    "br0",
    "qemu",
    "libvirt",
    "vdsm",
    "disk",
    "pxe",
    "cdrom",
    "/img/appliance.ova",
    "/iso/el9.iso",
    "/boot/vmlinuz",
    "vnc",
    "spice",
    "generate",
    "skip",
    "engine.example.com",
    "Europe/Prague",
    "52:54:00:00:00:01",
    "00000000-0000-0000-0000-000000000007",
    "a b",
    "ž",
];

fn stand_in() -> StandIn {
    let device = Device { id: "36001405aaaa".to_owned(), bytes: 1 << 40, about: String::new() };
    StandIn { devices: vec![device], ..StandIn::new() }
}

/// An answer to each question, or none; one that is right as long as nothing else is answered, where there is one.
fn answers() -> impl Strategy<Value = Vec<Option<&'static str>>> {
    let (host, paths) = (stand_in(), Paths::new("/"));
    let known = Known::begin(&paths, &host, None, Family::Auto);
    let right = |question: &Question| {
        let texts: Vec<_> =
            TEXTS.iter().copied().filter(|text| question.accept(&known, text).is_ok()).collect();
        let texts = if texts.is_empty() { TEXTS.to_vec() } else { texts };
        proptest::option::weighted(0.85, proptest::sample::select(texts))
    };
    questions::all().map(right).collect::<Vec<_>>()
}

proptest! {
    // One in some twenty-five mixtures is complete.
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_normal_form_is_its_own_normal_form(text in prop_oneof!["\\PC{0,40}", proptest::sample::select(TEXTS).prop_map(str::to_owned)]) {
        let (host, paths) = (stand_in(), Paths::new("/"));
        let known = Known::begin(&paths, &host, None, Family::Auto);
        for question in questions::all() {
            if let Ok(normal) = question.accept(&known, &text) {
                prop_assert_eq!(question.accept(&known, &normal), Ok(normal), "{}", question.key);
            }
        }
    }

    #[test]
    fn whatever_is_accepted_makes_a_request(
        answers in answers(), has_cluster: bool, joins in proptest::option::of(proptest::sample::select(TEXTS))
    ) {
        let folder = tempfile::tempdir().unwrap();
        let lines: Vec<_> = questions::all()
            .zip(answers)
            .filter_map(|(question, text)| Some(format!("{}=str:{}\n", question.key, text?)))
            .collect();
        let mut host = stand_in();
        host.clusters.extend(has_cluster.then(cluster));
        let join = joins.filter(|text| !text.is_empty()).map(str::to_owned);
        let args = DeployArgs {
            config_append: vec![file(&folder, &lines.concat())],
            yes: true,
            join,
            ..DeployArgs::default()
        };
        match host.alone(&args) {
            Ok(asked) => {
                // Written down it is the same again.
                let path = folder.path().join("again.conf");
                asked.answers.save(&path).unwrap();
                let again = host.alone(&DeployArgs { config_append: vec![path], ..args }).map(|again| again.request);
                match (again, asked.request) {
                    (Ok(Request::FirstHost(mut again)), Request::FirstHost(first)) => {
                        again.ids = first.ids;
                        prop_assert_eq!(again, first);
                    }
                    (Ok(again), request) => prop_assert_eq!(again, request),
                    // The passwords are not written.
                    (Err(DialogueError::Incomplete { missing, wrong }), _) => prop_assert!(
                        wrong.is_empty() && missing.iter().all(|missing| missing.key.ends_with("Password"))
                    ),
                    (Err(error), _) => prop_assert!(false, "{error}"),
                }
            }
            Err(DialogueError::Incomplete { missing, wrong }) => prop_assert!(!(missing.is_empty() && wrong.is_empty())),
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}
