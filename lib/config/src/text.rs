//! Small readings that all the `key=value` files share.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// The boolean rule of all these files: the first letter decides, any case; `t`, `y`, `1` are true, `f`, `n`,
/// `0` are false, anything else is neither.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text.trim().as_bytes().first()?.to_ascii_lowercase() {
        b't' | b'y' | b'1' => Some(true),
        b'f' | b'n' | b'0' => Some(false),
        _ => None,
    }
}

/// What a boolean must be, for error texts.
pub const BOOL_EXPECTED: &str = "True or False (the first letter counts: t, y, 1 or f, n, 0)";

/// The spelling that the existing tools write.
pub const fn bool_text(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

/// A host as the network functions take it: the brackets that files may put around an IPv6 address taken off.
pub fn bare_host(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.filter(|inner| inner.contains(':')).unwrap_or(host)
}

/// A host as a URL takes it: an IPv6 address in brackets, its zone escaped as RFC 6874 says.
pub fn host_in_url(host: &str) -> Cow<'_, str> {
    let bare = bare_host(host);
    let (address, zone) = bare.split_once('%').map_or((bare, None), |(address, zone)| (address, Some(zone)));
    if address.parse::<Ipv6Addr>().is_err() {
        return Cow::Borrowed(host);
    }
    Cow::Owned(zone.map_or_else(|| format!("[{address}]"), |zone| format!("[{address}%25{zone}]")))
}

/// The name in `known` that `name` most likely means: at most a third of its letters differ.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(far, candidate)| {
            *far <= candidate.chars().count().max(3) / 3 || candidate.starts_with(name)
        })
        .min_by_key(|(far, _)| *far)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, in characters, with `-` and `_` and upper and lower case alike.
fn distance(left: &str, right: &str) -> usize {
    let plain = |text: &str| {
        text.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect::<Vec<_>>()
    };
    let (left, right) = (plain(left), plain(right));
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_addresses_get_and_lose_their_brackets() {
        for (host, bare, url) in [
            ("engine.example", "engine.example", "engine.example"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1", "[2001:db8::1]"),
            ("[2001:db8::1]", "2001:db8::1", "[2001:db8::1]"),
            ("[fe80::1%br0]", "fe80::1%br0", "[fe80::1%25br0]"),
            ("127.0.0.1:80", "127.0.0.1:80", "127.0.0.1:80"),
            ("[x]", "[x]", "[x]"),
        ] {
            assert_eq!((bare_host(host), host_in_url(host).as_ref()), (bare, url));
        }
    }

    #[test]
    fn first_letter_decides() {
        for yes in ["True", "true", "yes", "Y", "1", " tRUE"] {
            assert_eq!(parse_bool(yes), Some(true), "{yes}");
        }
        for no in ["False", "no", "0", "f", "None"] {
            assert_eq!(parse_bool(no), Some(false), "{no}");
        }
        for neither in ["", "  ", "on", "é"] {
            assert_eq!(parse_bool(neither), None, "{neither}");
        }
    }

    #[test]
    fn nearest_name_is_found_or_nothing() {
        let known = ["io_timeout", "adapter", "profile"];
        assert_eq!(nearest("io-timeut", known), Some("io_timeout"));
        assert_eq!(nearest("adaptor", known), Some("adapter"));
        assert_eq!(nearest("zebra", known), None);
    }
}
