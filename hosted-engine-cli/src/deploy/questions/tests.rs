use std::collections::BTreeSet;

use super::*;

#[test]
fn the_table_is_sound() {
    let mut keys = BTreeSet::new();
    let mut labels = BTreeSet::new();
    let mut section = Section::Storage;
    for question in all() {
        let Question { key, label, prompt, explanation, .. } = question;
        assert!(keys.insert(*key) && labels.insert(*label), "{key}: asked twice");
        let (part, name) = key.split_once('/').unwrap();
        assert!(part.starts_with("OVEHOSTED_") && !name.is_empty(), "{key}");
        assert!(question.section >= section, "{key}: sections follow each other");
        section = question.section;
        for text in [prompt, label] {
            assert!(!text.is_empty() && !text.ends_with([' ', ':', '.']), "{key}: {text:?}");
        }
        assert!(explanation.ends_with('.') && !explanation.contains("  "), "{key}: {explanation:?}");
        assert!(find(key).is_some_and(|found| found.key == *key));
        let may_be_silent = !matches!(question.preset, Preset::Nothing);
        assert!(!question.is_quiet || may_be_silent, "{key}: a quiet question proposes something");
        if let Preset::Fixed(text) = question.preset {
            assert!(
                !text.is_empty() || question.if_empty.is_some(),
                "{key}: nothing is proposed, and must not be"
            );
            assert!(text.is_empty() || question.form.read(text).as_deref() == Ok(text), "{key}: {text:?}");
        }
        if question.is_secret() {
            assert!(matches!(question.preset, Preset::Nothing) && !question.is_quiet, "{key}");
        }
        // What the names of keys give away in other files must be secret here too.
        let is_named_so = ha_config::secret::is_secret_key(key) || key.ends_with("Pwd");
        assert_eq!(is_named_so, question.is_secret(), "{key}");
    }
}

#[test]
fn texts_are_brought_into_their_normal_form_or_refused() {
    type Check = fn(&str) -> Result<String, String>;
    let good: [(Check, &str, &str); 12] = [
        (check::host, "NAS.example.com", "nas.example.com"),
        (check::host, "[fd00::1]", "[fd00::1]"),
        (check::host, "192.0.2.1", "192.0.2.1"),
        (check::address, "FD00:0::1", "fd00::1"),
        (check::addresses, "192.0.2.1, fd00::1", "192.0.2.1,fd00::1"),
        (check::path, "/exports//", "/exports"),
        (check::path, "/", "/"),
        (check::ports, "3260 3261", "3260,3261"),
        (check::mac, "00:16:3E:aa:BB:0c", "00:16:3e:aa:bb:0c"),
        (check::plain_name, "hosted_storage-1.a", "hosted_storage-1.a"),
        (check::interface, "bond0.7", "bond0.7"),
        (check::full_name, "Engine.Example.com", "engine.example.com"),
    ];
    for (check, text, normal) in good {
        assert_eq!(check(text).as_deref(), Ok(normal), "{text}");
    }
    let long = "a".repeat(64);
    let bad: [(Check, &str); 20] = [
        (check::host, "-a.example"),
        (check::host, "a..b"),
        (check::host, "1.2.3"),
        (check::host, "a_b.example"),
        (check::host, &long),
        (check::host, ""),
        (check::full_name, "engine"),
        (check::address, "192.0.2.256"),
        (check::addresses, "x"),
        (check::path, "exports"),
        (check::path, "/a/../b"),
        (check::ports, "0"),
        (check::ports, "65536"),
        (check::mac, "01:00:5e:00:00:01"),
        (check::mac, "+0:16:3e:00:00:01"),
        (check::mac, "00:16:3e:00:00"),
        (check::plain_name, "a b"),
        (check::interface, "a-name-that-is-too-long"),
        (check::interface, ".."),
        (check::ssh_keys, "ssh-rsa"),
    ];
    for (check, text) in bad {
        let error = check(text).unwrap_err();
        assert!(error.contains(&format!("{text:?}")) && error.contains("must be"), "{error}");
    }
}

#[test]
fn networks_and_their_neighbours() {
    let network = check::address_with_prefix("10.0.5.7/20").unwrap();
    for (address, is_beside) in
        [("10.0.0.1", true), ("10.0.15.254", true), ("10.0.16.1", false), ("fd00::1", false)]
    {
        assert_eq!(check::is_beside(network, address.parse().unwrap()), is_beside, "{address}");
    }
    let network = check::address_with_prefix("2001:db8::5/64").unwrap();
    assert!(check::is_beside(network, "2001:db8::1".parse().unwrap()));
    assert!(!check::is_beside(network, "2001:db8:0:1::1".parse().unwrap()));
    let alone = check::address_with_prefix("10.0.0.1/32").unwrap();
    assert!(!check::is_beside(alone, "10.0.0.2".parse().unwrap()));
    for text in ["10.0.0.1", "10.0.0.1/0", "10.0.0.1/33", "x/24", "fd00::1/129"] {
        assert_eq!(check::address_with_prefix(text), None, "{text}");
    }
}

#[test]
fn a_host_has_a_name_of_its_own() {
    assert_eq!(engine::host_name("H1.example.com").as_deref(), Ok("h1.example.com"));
    for text in ["localhost", "Localhost.localdomain"] {
        assert!(engine::host_name(text).unwrap_err().contains("the name of every host"), "{text}");
    }
}
