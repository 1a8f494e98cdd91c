//! Whether texts are what they must be. Each returns the normal form, or what is wrong and what it must be.

use std::net::IpAddr;
use std::path::Path;

/// The parts of a list with commas or spaces between them.
pub(in crate::deploy) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ']).map(str::trim).filter(|part| !part.is_empty())
}

/// `server:/path` into both; the server may be an IPv6 address in brackets.
pub(super) fn split_host(text: &str) -> Option<(&str, &str)> {
    let colon = text.find(":/")?;
    Some((&text[..colon], &text[colon + 1..]))
}

/// A DNS name or an address.
pub(super) fn host(text: &str) -> Result<String, String> {
    let bare = ha_config::text::bare_host(text);
    if bare.parse::<IpAddr>().is_ok() { Ok(text.to_owned()) } else { name(text) }
}

/// A DNS name.
pub(super) fn name(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= 253 && text.split('.').all(label) && !is_like_ipv4(text) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("{text:?} must be a DNS name: letters, digits and hyphens, with dots between its parts"))
}

fn is_like_ipv4(text: &str) -> bool {
    text.split('.').all(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A DNS name with a domain.
pub(super) fn full_name(text: &str) -> Result<String, String> {
    if !text.contains('.') {
        return Err(format!(
            "{text:?} must be a fully qualified domain name, for example engine.example.com"
        ));
    }
    name(text)
}

/// An IP address.
pub(super) fn address(text: &str) -> Result<String, String> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => Err(format!("{text:?} must be an IP address")),
    }
}

/// IP addresses.
pub(super) fn addresses(text: &str) -> Result<String, String> {
    let all: Result<Vec<_>, _> = list(text).map(address).collect();
    Ok(all?.join(","))
}

/// `10.0.0.5/24` into both.
pub(super) fn address_with_prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let (address, prefix) = (address.parse::<IpAddr>().ok()?, prefix.parse::<u8>().ok()?);
    let most = if address.is_ipv4() { 32 } else { 128 };
    (1..=most).contains(&prefix).then_some((address, prefix))
}

/// Whether both are in the network of the first.
pub(super) fn is_beside((address, prefix): (IpAddr, u8), other: IpAddr) -> bool {
    match (address, other) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(32 - u32::from(prefix)).unwrap_or(0) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(128 - u32::from(prefix)).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// An absolute path without `..`.
pub(super) fn path(text: &str) -> Result<String, String> {
    let path = Path::new(text);
    let climbs = path.components().any(|part| part == std::path::Component::ParentDir);
    if !path.is_absolute() || climbs {
        return Err(format!("{text:?} must be an absolute path without .."));
    }
    Ok(match text.trim_end_matches('/') {
        "" => "/".to_owned(),
        text => text.to_owned(),
    })
}

/// TCP ports.
pub(super) fn ports(text: &str) -> Result<String, String> {
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port.to_string()),
        _ => Err(format!("{text:?} must be a TCP port, from 1 to 65535")),
    };
    let all: Result<Vec<_>, _> = list(text).map(port).collect();
    Ok(all?.join(","))
}

/// A name of something in the engine: letters, digits, `_`, `-`, `.`.
pub(super) fn plain_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if text.len() <= 50 && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} must be at most 50 letters, digits, hyphens, underscores and dots"))
}

/// The name of a network interface.
pub(super) fn interface(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if (1..=15).contains(&text.len()) && text.chars().all(plain) && !matches!(text, "." | "..") {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} must be the name of a network interface: at most 15 letters, digits, hyphens, underscores, dots"
    ))
}

/// A MAC address of one card, in lower case.
pub(super) fn mac(text: &str) -> Result<String, String> {
    let bytes: Vec<_> = text.split(':').collect();
    let is_hex = |byte: &&str| byte.len() == 2 && byte.bytes().all(|digit| digit.is_ascii_hexdigit());
    // Bit 0 of the first byte: the address of a group.
    let is_unicast = u8::from_str_radix(bytes[0], 16).is_ok_and(|first| first & 1 == 0);
    if bytes.len() != 6 || !bytes.iter().all(is_hex) || !is_unicast {
        return Err(format!("{text:?} must be the MAC address of one card, for example 00:16:3e:12:34:56"));
    }
    Ok(text.to_ascii_lowercase())
}

/// SSH's public keys, one a line.
pub(super) fn ssh_keys(text: &str) -> Result<String, String> {
    let mut keys = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut parts = line.split(' ');
        let (kind, key) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let is_kind = ["ssh-", "ecdsa-", "sk-"].iter().any(|start| kind.starts_with(start));
        let is_base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
        if !is_kind || key.len() < 40 || !key.chars().all(is_base64) || line.chars().any(char::is_control) {
            return Err(format!("{line:?} must be a public SSH key, for example ssh-ed25519 AAAAC3Nz… root"));
        }
        keys.push(line);
    }
    Ok(keys.join("\n"))
}
