//! Foreign text made harmless for terminals, logs and mails. It never fails and never loses readable text.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Turns foreign bytes into text that is safe to show: bytes that are no UTF-8 become `\xNN`, control characters
/// and characters that change the direction of writing become visible escapes. `keep` names control characters
/// that stay, such as a newline.
pub fn printable(bytes: &[u8], keep: &[char]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if needs_escape(c) && !keep.contains(&c) {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// [`printable`] for error messages: at most `max` characters, with `...` in place of the rest.
pub fn excerpt(bytes: &[u8], max: usize) -> String {
    // A character takes at most four bytes, so that no more than this can matter.
    let seen = &bytes[..bytes.len().min(max.saturating_mul(4))];
    let text = printable(seen, &[]);
    match shorten(&text, max) {
        Cow::Borrowed(_) if seen.len() == bytes.len() => text,
        shortened => format!("{}...", shortened.trim_end_matches("...")),
    }
}

/// At most `max` characters of `text`; when something was left out it ends with `...`.
pub fn shorten(text: &str, max: usize) -> Cow<'_, str> {
    if text.char_indices().nth(max).is_none() {
        return Cow::Borrowed(text);
    }
    let kept: String = text.chars().take(max.saturating_sub(3)).collect();
    Cow::Owned(kept + &"..."[..max.min(3)])
}

fn needs_escape(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_become_visible() {
        assert_eq!(printable(b"a\x1b[31mb\xff\n", &['\n']), "a\\u{1b}[31mb\\xff\n");
        assert_eq!(printable("t\u{202e}x".as_bytes(), &[]), "t\\u{202e}x");
        assert_eq!(printable("häuser".as_bytes(), &[]), "häuser");
    }

    #[test]
    fn long_text_is_cut_with_a_mark() {
        assert_eq!(shorten("abcdefgh", 8), "abcdefgh");
        assert_eq!(shorten("abcdefghi", 8), "abcde...");
        assert_eq!(excerpt(b"abcdefghi", 8), "abcde...");
        assert_eq!(excerpt(&[b'x'; 4096], 10).len(), 10);
    }
}
