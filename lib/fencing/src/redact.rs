//! What an agent said, made fit for errors and logs: no secret, one line, the end of it.

use ha_config::Secret;

use crate::error::Said;

/// Characters that an excerpt has at most.
const EXCERPT: usize = 400;
/// What stands in place of a secret.
const BLANK: &str = "(secret)";

/// The last words of `text` without `secrets`. They are looked for before anything is cut off, so that no part of one is
/// left at the edge.
pub(crate) fn excerpt(text: &[u8], secrets: &[&Secret]) -> Said {
    let mut text = String::from_utf8_lossy(text).into_owned();
    let mut forms: Vec<String> = secrets.iter().flat_map(|secret| forms(secret.reveal())).collect();
    // The longest first: a short one may be a part of it.
    forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
    forms.dedup();
    for form in forms.iter().filter(|form| !form.is_empty()) {
        text = text.replace(form, BLANK);
    }
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    let from = line.char_indices().rev().nth(EXCERPT).map_or(0, |(at, _)| at);
    Said(if from == 0 { line } else { format!("…{}", &line[from..]) })
}

/// The ways in which programs write a text: as it is, in an address, for a shell, inside quotes, and in a header.
fn forms(secret: &str) -> Vec<String> {
    let percent = |keep: &dyn Fn(u8) -> bool| -> String {
        let one = |byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
        secret.bytes().map(one).collect()
    };
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let escaped = secret.replace('\\', "\\\\");
    vec![
        secret.to_owned(),
        percent(&unreserved),
        percent(&|byte| unreserved(byte) || byte == b'/'),
        percent(&unreserved).replace("%20", "+"),
        secret.replace('\'', "'\"'\"'"),
        secret.replace('\'', "'\\''"),
        escaped.replace('"', "\\\""),
        escaped.replace('\'', "\\'"),
        escaped,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(text: &str, secrets: &[&str]) -> String {
        let secrets: Vec<Secret> = secrets.iter().map(|text| Secret::new(*text)).collect();
        excerpt(text.as_bytes(), &secrets.iter().collect::<Vec<_>>()).0
    }

    #[test]
    fn a_secret_is_blank_in_every_form() {
        let secret = "p'w \"1/\\";
        for text in [
            "login with p'w \"1/\\ failed",
            "GET /?p=p%27w%20%221%2F%5C",
            "GET /?p=p%27w+%221%2F%5C",
            "ipmitool -P 'p'\"'\"'w \"1/\\'",
            "{\"password\": \"p'w \\\"1/\\\\\"}",
        ] {
            let said = said(text, &[secret]);
            assert!(said.contains(BLANK) && !said.contains('1'), "{text}: {said}");
        }
        assert_eq!(said("abcd ab", &["ab", "abcd"]), "(secret) (secret)");
        assert_eq!(said("nothing", &[""]), "nothing");
    }

    #[test]
    fn the_end_is_kept_on_one_line() {
        let text = format!("first\n{}\tERROR:\r\n\u{1b}[31mlast\n", "x".repeat(1000));
        let said = said(&text, &[]);
        assert!(said.starts_with('…') && said.ends_with("ERROR: [31mlast"), "{said}");
        assert!(said.chars().count() <= EXCERPT + 2);
    }

    #[test]
    fn a_secret_at_the_edge_leaves_no_part_of_itself() {
        let text = format!("hunter2hunter2{}", "x".repeat(EXCERPT - 5));
        assert!(!said(&text, &["hunter2hunter2"]).contains("ter2"));
    }

    proptest! {
        #[test]
        fn no_secret_is_left(before in "[a-z ]{0,20}", secret in "[A-Z0-9'\"\\\\%]{4,12}", after in "[a-z\u{e9}]{0,500}") {
            let said = said(&format!("{before}{secret}{after}"), &[&secret]);
            prop_assert!(!said.contains(&secret));
        }
    }
}
