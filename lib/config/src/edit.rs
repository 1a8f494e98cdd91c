//! Changing one key in the text of a configuration file, with every other byte kept as it is: comments, order, line
//! ends, bytes that are no UTF-8. Pure.

/// Gives `key` of a `key=value` text a value: on its last line if it has one, else on a new line at the end. The
/// value is one line.
pub(crate) fn set_key_value(text: &[u8], key: &str, value: &str) -> Vec<u8> {
    let line = format!("{key}={value}");
    let last = lines(text).filter(|found| {
        let line = found.text(text).trim_ascii();
        !line.starts_with(b"#") && before(line, b"=").is_some_and(|name| name == key.as_bytes())
    });
    match last.last() {
        Some(found) => spliced(text, found.start..found.end, &line),
        None => appended(text, text.len(), &line),
    }
}

/// Gives `key` of a section of an INI text a value, by the rules of [`crate::ini`]: in place if the key is there (with
/// the lines that went on with its old value), else after the section's last line; a section that is not there is
/// added. The value is one line; a percent sign in it is doubled, as readers expect.
pub(crate) fn set_ini(text: &[u8], section: &str, key: &str, value: &str) -> Vec<u8> {
    let value = value.replace('%', "%%");
    let (mut inside, mut target, mut section_end) = (false, None::<std::ops::Range<usize>>, None);
    let mut open = false;
    for found in lines(text) {
        let raw = found.text(text);
        let line = raw.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") || line.starts_with(b";") {
            continue;
        }
        if raw.starts_with(b" ") || raw.starts_with(b"\t") {
            // The value of the key before goes on.
            if open && let Some(target) = &mut target {
                target.end = found.end;
            }
        } else if let Some(name) = line.strip_prefix(b"[") {
            open = false;
            inside = before(name, b"]") == Some(section.as_bytes());
        } else if inside {
            let name = before(line, b"=:").unwrap_or(line);
            open = name.eq_ignore_ascii_case(key.as_bytes());
            if open {
                target = Some(found.start..found.end);
            }
        }
        if inside {
            section_end = Some(found.next);
        }
    }
    match (target, section_end) {
        (Some(range), _) => spliced(text, range, &format!("{key} = {value}")),
        (None, Some(end)) => appended(text, end, &format!("{key} = {value}")),
        (None, None) => appended(text, text.len(), &format!("[{section}]\n{key} = {value}")),
    }
}

/// One line's place: its bytes without the line end, and where the next line begins.
struct Line {
    start: usize,
    end: usize,
    next: usize,
}

impl Line {
    fn text<'a>(&self, all: &'a [u8]) -> &'a [u8] {
        &all[self.start..self.end]
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = Line> {
    text.split_inclusive(|byte| *byte == b'\n').scan(0, |at, line| {
        let start = *at;
        *at += line.len();
        let body = line.strip_suffix(b"\n").unwrap_or(line);
        let body = body.strip_suffix(b"\r").unwrap_or(body);
        Some(Line { start, end: start + body.len(), next: *at })
    })
}

/// What stands before the first of `marks`, trimmed; `None` without one of them.
fn before<'a>(line: &'a [u8], marks: &[u8]) -> Option<&'a [u8]> {
    let at = line.iter().position(|byte| marks.contains(byte))?;
    Some(line[..at].trim_ascii())
}

fn spliced(text: &[u8], range: std::ops::Range<usize>, line: &str) -> Vec<u8> {
    [&text[..range.start], line.as_bytes(), &text[range.end..]].concat()
}

/// A new line at `at`, the end of a line or of the text.
fn appended(text: &[u8], at: usize, line: &str) -> Vec<u8> {
    let (head, tail) = text.split_at(at);
    let break_before: &[u8] = if head.is_empty() || head.ends_with(b"\n") { b"" } else { b"\n" };
    [head, break_before, line.as_bytes(), b"\n", tail].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ini::Ini;
    use crate::key_value::KeyValueFile;
    use proptest::prelude::*;
    use std::path::Path;

    fn kv(text: &str, key: &str, value: &str) -> String {
        String::from_utf8(set_key_value(text.as_bytes(), key, value)).unwrap()
    }

    fn ini(text: &str, section: &str, key: &str, value: &str) -> String {
        String::from_utf8(set_ini(text.as_bytes(), section, key, value)).unwrap()
    }

    #[test]
    fn one_line_changes_and_every_other_byte_stays() {
        assert_eq!(kv("# a=1\r\na = 1\r\n\nb=2", "a", "x=y"), "# a=1\r\na=x=y\r\n\nb=2");
        assert_eq!(kv("a=1\na=2\nodd\n", "a", "3"), "a=1\na=3\nodd\n", "the last one counts");
        assert_eq!(kv("a=1", "b", "2"), "a=1\nb=2\n");
        assert_eq!(kv("", "b", "2"), "b=2\n");
        assert_eq!(set_key_value(b"#\xff\na=1\n", "a", "2"), b"#\xff\na=2\n");
    }

    #[test]
    fn ini_keys_change_in_their_section_only() {
        let text = "; c\n[email]\nsmtp-port=25\nx: 1\n\n[notify]\nstate = a|\n  b\n# end\n";
        assert_eq!(ini(text, "email", "SMTP-PORT", "26"), text.replace("smtp-port=25", "SMTP-PORT = 26"));
        assert_eq!(ini(text, "notify", "state", "c"), text.replace("state = a|\n  b", "state = c"));
        assert_eq!(ini(text, "email", "y", "5%"), text.replace("x: 1\n", "x: 1\ny = 5%%\n"));
        assert_eq!(ini(text, "new", "y", "1"), format!("{text}[new]\ny = 1\n"));
        assert_eq!(ini("[a]", "a", "k", "v"), "[a]\nk = v\n");
    }

    proptest! {
        #[test]
        fn what_was_set_is_read_back(
            text in "([ =#a-c\u{e9}]{0,8}\r?\n){0,6}[a-c=]{0,4}", key in "[a-c]", value in "([!-~]([ -~]{0,6}[!-~])?)?",
        ) {
            let edited = kv(&text, &key, &value);
            let (old, new) = (KeyValueFile::parse("x", &text), KeyValueFile::parse("x", &edited));
            prop_assert_eq!(new.find(&key).unwrap().value, value);
            for (_, other, _) in old.entries().filter(|(_, other, _)| *other != key) {
                prop_assert_eq!(old.find(other).unwrap().value, new.find(other).unwrap().value);
            }
        }

        #[test]
        fn ini_values_are_read_back(
            lines in prop::collection::vec("\\[[ab]\\]|[c-e] ?[=:] ?[a-z%]{0,3}|[#;] ?[a-e=]{0,3}|", 0..8),
            section in "[ab]", key in "[c-e]", value in "[!-~]([ -~]{0,6}[!-~])?",
        ) {
            let text = lines.join("\n");
            let Ok(old) = Ini::parse(Path::new("x"), &text) else { return Ok(()) };
            let edited = ini(&text, &section, &key, &value);
            let new = Ini::parse(Path::new("x"), &edited).unwrap();
            let values = |ini: &Ini| {
                let mut all = Vec::new();
                for name in ["a", "b"] {
                    all.extend(ini.section(name).map(|e| (name, e.key.clone(), e.value.clone())));
                }
                all.sort();
                all
            };
            let mut wanted: Vec<_> =
                values(&old).into_iter().filter(|(s, k, _)| (*s, k) != (section.as_str(), &key)).collect();
            let name = if section == "a" { "a" } else { "b" };
            wanted.push((name, key, value));
            wanted.sort();
            prop_assert_eq!(values(&new), wanted);
        }
    }
}
