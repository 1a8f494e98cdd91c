//! The seed that cloud-init reads at the VM's first start: a small CD image with the label `cidata`.
//!
//! Its three files are JSON, which is YAML too, so that no value can become anything else. The root password is in it as
//! a SHA-512 hash of crypt(3) only. What is in the seed is a secret all the same: the image is for the VM's user alone, lies
//! in the run directory, and is removed when the engine answers.
//!
//! Forms: <https://cloudinit.readthedocs.io/> (data source `NoCloud`, network configuration version 2).

mod iso;

use std::net::IpAddr;

use ha_config::Secret;
use serde_json::{Value, json};
use sha_crypt::{PasswordHasher as _, ShaCrypt};
use uuid::Uuid;

use crate::deploy::request::Seed;
use crate::deploy::{DeployError, Family, FirstHost};
use iso::{IsoFile, image};

/// The label by which cloud-init finds it.
const LABEL: &str = "cidata";
/// crypt(3) looks at 16 characters of salt, of 6 bits each.
const SALT_BYTES: usize = 12;
/// Longest password.
const PASSWORD_LIMIT: usize = 256;

fn refused(text: String) -> DeployError {
    DeployError::Refused(text)
}

/// Checks every value of a seed, for the dialogue too.
///
/// # Errors
/// The value that cannot be used, with what is right.
pub fn check(seed: &Seed) -> Result<(), DeployError> {
    if let Some(name) = &seed.hostname
        && !is_host_name(name)
    {
        return Err(refused(format!(
            "the VM's name {name:?} is no host name: letters, digits and '-' between dots, at most 63 in each part"
        )));
    }
    if let Some(key) = seed.ssh_keys.iter().find(|key| !is_ssh_key(key)) {
        return Err(refused(format!(
            "{key:?} is no public SSH key: one line like \"ssh-ed25519 AAAA… name\" is (a file *.pub)"
        )));
    }
    let address = seed.address.as_deref().map(parse_address).transpose()?;
    match (address, seed.gateway) {
        (None, Some(gateway)) => {
            return Err(refused(format!(
                "the VM's gateway {gateway} needs an address of the VM beside it, such as 192.0.2.5/24"
            )));
        }
        (Some((address, prefix)), Some(gateway)) if !is_in_network(gateway, address, prefix) => {
            return Err(refused(format!(
                "the VM's gateway {gateway} is not in the network of its address {address}/{prefix}"
            )));
        }
        _ => {}
    }
    if let Some(zone) = &seed.timezone {
        let part = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+-".contains(&byte))
        };
        if zone.len() > 64 || !zone.split('/').all(part) {
            return Err(refused(format!(
                "{zone:?} is no time zone; one is Europe/Prague (timedatectl list-timezones)"
            )));
        }
    }
    Ok(())
}

fn is_host_name(name: &str) -> bool {
    let part = |part: &str| {
        (1..=63).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(part)
}

fn is_ssh_key(key: &str) -> bool {
    let mut words = key.split(' ');
    let kind = words.next().unwrap_or_default();
    let data = words.next().unwrap_or_default();
    let is_kind = ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"].iter().any(|start| kind.starts_with(start));
    // The data begins with its kind's length: base 64 of 00 00 00.
    is_kind
        && data.starts_with("AAAA")
        && data.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
        && !key.chars().any(char::is_control)
        && key.len() < 16 << 10
}

fn parse_address(text: &str) -> Result<(IpAddr, u8), DeployError> {
    let parsed = text.split_once('/').and_then(|(address, prefix)| {
        let address: IpAddr = address.parse().ok()?;
        let prefix: u8 = prefix.parse().ok()?;
        (1..=if address.is_ipv4() { 32 } else { 128 }).contains(&prefix).then_some((address, prefix))
    });
    parsed.ok_or_else(|| {
        refused(format!("the VM's address {text:?} must be an address with its prefix, such as 192.0.2.5/24"))
    })
}

fn is_in_network(gateway: IpAddr, address: IpAddr, prefix: u8) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    };
    let ((gateway_bits, width), (own_bits, own_width)) = (bits(gateway), bits(address));
    // A link-local gateway is in every IPv6 network.
    let is_link_local = matches!(gateway, IpAddr::V6(ip) if ip.is_unicast_link_local());
    width == own_width && (is_link_local || (gateway_bits ^ own_bits) >> (width - u32::from(prefix)) == 0)
}

/// The hash of a password as it stands in shadow(5).
fn hash(password: &Secret) -> Result<String, DeployError> {
    let text = password.reveal();
    if text.is_empty() || text.len() > PASSWORD_LIMIT || text.chars().any(char::is_control) {
        return Err(refused(format!(
            "root's password in the VM must have 1 to {PASSWORD_LIMIT} characters and no control characters"
        )));
    }
    let salt = Uuid::new_v4().into_bytes();
    let hashed = ShaCrypt::SHA512.hash_password_with_salt(text.as_bytes(), &salt[..SALT_BYTES]);
    // The library's reasons say nothing that helps, and must not say the password.
    hashed
        .map(|hash| hash.as_str().to_owned())
        .map_err(|_| refused("root's password in the VM cannot be hashed; give another one".to_owned()))
}

/// The seed's image.
///
/// # Errors
/// A value that cannot be used.
pub(super) fn make(
    first: &FirstHost,
    seed: &Seed,
    password: Option<&Secret>,
) -> Result<Vec<u8>, DeployError> {
    check(seed)?;
    let name = seed.hostname.as_ref().unwrap_or(&first.engine.fqdn);
    let user_data = user_data(name, seed, password.map(hash).transpose()?.as_deref());
    let user_data = format!("#cloud-config\n{user_data}\n");
    let meta_data = json!({"instance-id": first.ids.deploy, "local-hostname": name}).to_string();
    let network = network(first, seed)?.to_string();
    let file = |short, name, content| IsoFile { short, name, content };
    Ok(image(
        LABEL,
        &[
            file("METADATA", "meta-data", meta_data.as_bytes()),
            file("NETWORK", "network-config", network.as_bytes()),
            file("USERDATA", "user-data", user_data.as_bytes()),
        ],
    ))
}

fn user_data(name: &str, seed: &Seed, hash: Option<&str>) -> Value {
    let mut root = json!({"name": "root", "ssh_authorized_keys": seed.ssh_keys});
    let mut data = json!({
        "hostname": name,
        "fqdn": name,
        "prefer_fqdn_over_hostname": true,
        "disable_root": false,
    });
    if let Some(hash) = hash {
        root["lock_passwd"] = json!(false);
        root["hashed_passwd"] = json!(hash);
        data["ssh_pwauth"] = json!(true);
    }
    data["users"] = json!([root]);
    if let Some(zone) = &seed.timezone {
        data["timezone"] = json!(zone);
    }
    data
}

fn network(first: &FirstHost, seed: &Seed) -> Result<Value, DeployError> {
    let mut card = json!({"match": {"macaddress": first.vm.mac.to_ascii_lowercase()}});
    match seed.address.as_deref().map(parse_address).transpose()? {
        None => {
            card["dhcp4"] = json!(first.family != Family::V6);
            card["dhcp6"] = json!(first.family == Family::V6);
        }
        Some((address, prefix)) => {
            card["dhcp4"] = json!(false);
            card["dhcp6"] = json!(false);
            card["addresses"] = json!([format!("{address}/{prefix}")]);
            if let Some(gateway) = seed.gateway {
                let to = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
                card["routes"] = json!([{"to": to, "via": gateway}]);
            }
        }
    }
    if !seed.dns.is_empty() {
        card["nameservers"] = json!({"addresses": seed.dns});
    }
    Ok(json!({"version": 2, "ethernets": {"engine": card}}))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha_crypt::PasswordVerifier as _;

    use super::*;
    use crate::deploy::Boot;
    use crate::deploy::vm::testing::Bench;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHhH a\"b: [c]";

    fn seed() -> Seed {
        Seed {
            hostname: None,
            ssh_keys: vec![KEY.to_owned()],
            address: Some("192.0.2.5/24".to_owned()),
            gateway: Some("192.0.2.1".parse().unwrap()),
            dns: vec!["192.0.2.2".parse().unwrap(), "2001:db8::2".parse().unwrap()],
            timezone: Some("Europe/Prague".to_owned()),
        }
    }

    #[test]
    fn a_seed_says_what_was_asked_for_and_hides_the_password() {
        let mut bench = Bench::new(Boot::Disk(None));
        let password = Secret::new("correct horse");
        let image = make(bench.first(), &seed(), Some(&password)).unwrap();
        let text = String::from_utf8_lossy(&image);
        assert!(!text.contains("correct horse"));
        let line = text.split("#cloud-config\n").nth(1).unwrap().lines().next().unwrap();
        let data: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&data["hostname"], &data["timezone"]),
            (&json!("engine.example.com"), &json!("Europe/Prague"))
        );
        let root = &data["users"][0];
        assert_eq!((&root["name"], &root["ssh_authorized_keys"]), (&json!("root"), &json!([KEY])));
        let hash = root["hashed_passwd"].as_str().unwrap();
        let hash = sha_crypt::PasswordHash::new(hash).unwrap();
        assert!(hash.as_str().starts_with("$6$"));
        ShaCrypt::SHA512.verify_password(b"correct horse", &hash).unwrap();
        // crypt(3) does not look at more salt.
        assert!(hash.as_str().split('$').any(|part| part.len() == 16));

        let network = network(bench.first(), &seed()).unwrap();
        let card = &network["ethernets"]["engine"];
        assert_eq!(card["match"]["macaddress"], "00:16:3e:01:02:03");
        assert_eq!(card["addresses"], json!(["192.0.2.5/24"]));
        assert_eq!(card["routes"], json!([{"to": "0.0.0.0/0", "via": "192.0.2.1"}]));
        assert_eq!(card["nameservers"]["addresses"], json!(["192.0.2.2", "2001:db8::2"]));
        let plain = super::network(bench.first(), &Seed::default()).unwrap();
        assert_eq!(plain["ethernets"]["engine"]["dhcp4"], true);
        let data = user_data("x", &Seed::default(), None);
        assert!(data["users"][0].get("hashed_passwd").is_none() && data.get("ssh_pwauth").is_none());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_value() {
        let wrong = |change: &dyn Fn(&mut Seed)| {
            let mut seed = seed();
            change(&mut seed);
            check(&seed).unwrap_err().to_string()
        };
        assert!(wrong(&|seed| seed.hostname = Some("-a.b".to_owned())).contains("\"-a.b\""));
        assert!(
            wrong(&|seed| seed.ssh_keys = vec!["ssh-rsa AAAA\nroot: x".to_owned()])
                .contains("public SSH key")
        );
        assert!(wrong(&|seed| seed.ssh_keys = vec!["-----BEGIN".to_owned()]).contains("*.pub"));
        assert!(wrong(&|seed| seed.address = Some("192.0.2.5".to_owned())).contains("192.0.2.5\" must"));
        assert!(wrong(&|seed| seed.address = Some("192.0.2.5/33".to_owned())).contains("/33"));
        assert!(
            wrong(&|seed| seed.address = Some("198.51.100.5/24".to_owned())).contains("not in the network")
        );
        assert!(wrong(&|seed| seed.address = None).contains("needs an address"));
        assert!(wrong(&|seed| seed.gateway = Some("2001:db8::1".parse().unwrap())).contains("2001:db8::1"));
        for zone in ["", "../etc", "Europe/", "a b"] {
            assert!(wrong(&|seed| seed.timezone = Some(zone.to_owned())).contains("time zone"), "{zone}");
        }
        for password in ["", "a\nb", &"x".repeat(300)] {
            let error = hash(&Secret::new(password)).unwrap_err().to_string();
            assert!(error.contains("1 to 256 characters"), "{error}");
        }
        let v6 = |seed: &mut Seed| {
            seed.address = Some("2001:db8::5/64".to_owned());
            seed.gateway = Some("fe80::1".parse().unwrap());
        };
        let mut good = seed();
        v6(&mut good);
        check(&good).unwrap();
    }

    proptest! {
        #[test]
        fn no_value_becomes_anything_else(name in "\\PC{0,40}", key in "[ -~]{0,40}", zone in "[ -~]{0,20}") {
            let key = format!("ssh-rsa AAAA {key}");
            let seed = Seed { hostname: Some(name.clone()), ssh_keys: vec![key.clone()], timezone: Some(zone.clone()),
                ..Seed::default() };
            if check(&seed).is_ok() {
                let data: Value = serde_json::from_str(&user_data(&name, &seed, None).to_string()).unwrap();
                prop_assert_eq!(&data["fqdn"], &json!(name));
                prop_assert_eq!(&data["users"][0]["ssh_authorized_keys"][0], &json!(key));
                prop_assert_eq!(&data["timezone"], &json!(zone));
            }
        }
    }
}
